"""The rollout verbs of the lab's API. Decides when `rollout status` answers: at once, or when it has something new to say."""

import time
from typing import Any

from netlab import controllers
from netlab.errors import InputError
from netlab.lab.bodies import Body, Later
from netlab.lab.holder import Lab
from netlab.manifest import kinds
from netlab.manifest.shown_time import timestamp
from netlab.model import Cluster, Key


def _named(body: Body) -> tuple[str, Key]:
    return kinds.find(body["kind"]).kind, Key(body.get("namespace", "default"), body["name"])


def rollout(lab: Lab, body: Body) -> dict[str, Any]:
    """{"action": restart|undo|pause|resume|history, "kind", "name", "namespace", "revision"} -> {"message"} or {"history"}"""
    kind, key = _named(body)
    match body["action"]:
        case "restart":
            # A second restart within one second is one, too: kubectl's stamp has whole seconds, and then nothing would happen.
            stamp = f"{timestamp(time.time()).removesuffix('Z')}.{time.time_ns() % 10**9 // 10**6:03d}Z"
            lab.change(controllers.restart(lab.now, kind, key, stamp))
            return {"message": "restarted"}
        case "undo":
            after, message = controllers.undo(lab.now, kind, key, int(body.get("revision") or 0))
            lab.change(after)
            return {"message": message}
        case "pause" | "resume" as verb:
            lab.change(controllers.pause(lab.now, kind, key, verb == "pause"))
            return {"message": f"{verb}d"}
        case "history":
            return {"history": controllers.shown_revision(controllers.history(lab.cluster, kind, key))}
        case action:
            raise InputError(f"unknown action {action!r}: restart, undo, pause, resume or history")


def status(lab: Lab, body: Body, later: Later) -> None:
    """{"kind", "name", "namespace", "seen"} -> {"message", "done", "failed"}, once the message is another than `seen`.

    A caller that goes away before is forgotten with its connection. The lab does not ask again and again: it answers after the
    change that makes the difference.
    """
    kind, key = _named(body)
    controllers.rollout_message(lab.now, kind, key)  # what is not there is said at once

    def told(cluster: Cluster) -> controllers.Told:
        return controllers.rollout_message(cluster, kind, key)

    def is_new(cluster: Cluster) -> bool:
        if controllers.find(cluster, kind, key) is None:
            return True
        now = told(cluster)
        return now.done or now.message != body.get("seen")

    def answer() -> None:
        if controllers.find(lab.cluster, kind, key) is None:
            return later(False, controllers.not_found(kind, key.name))
        now = told(lab.cluster)
        return later(True, {"message": now.message, "done": now.done, "failed": now.failed})

    lab.when(is_new, answer)
