"""What the programs of pods printed: the verb `logs`, all at once or waiting for more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from netlab.errors import ApiError, InputError
from netlab.images import runs_program
from netlab.lab.bodies import Later
from netlab.lab.holder import Lab
from netlab.lab.verbs import container_of
from netlab.model import Container, ContainerStatus, Key, Ref
from netlab.targets import netns_of, resolve_sender

LOOK_S = 0.05
"""How often a file is looked at for which somebody waits."""


def logs(lab: Lab, body: Mapping[str, Any], later: Later) -> None:
    """{"pod", "namespace", "container", "previous", "offset", "run", "wait_s"}
    -> {"text", "offset", "run", "ended", "note"}

    `run` is the container's number of restarts: when there has been another since, its output is given from the start. With
    `wait_s` the answer waits until there is something behind `offset`, the container has ended, or so many seconds are over.
    """
    ref = resolve_sender(lab.cluster, body["pod"], body.get("namespace", "default"))
    if ref.kind != "pod":
        later(True, _daemon_log(lab, netns_of(lab.cluster, ref), body.get("container")))
        return
    container = container_of(lab, ref, body.get("container"))
    if not runs_program(container):
        later(True, {"text": "", "offset": 0, "run": 0, "ended": True,
                     "note": f"{ref} is answered for by the built-in responder, which prints nothing"})  # fmt: skip
        return
    path = lab.processes.log_path(ref, container.name, bool(body.get("previous")))
    if body.get("previous") and not path.exists():
        raise ApiError(400, "BadRequest", f'previous terminated container "{container.name}" in pod "{ref.name}" not found')
    waited = _Waiting(lab, ref, container, path, int(body.get("offset", 0)), body.get("run"), later)
    waited.look(lab.loop.now() + float(body.get("wait_s", 0)))


def _daemon_log(lab: Lab, netns: str, name: str | None) -> dict[str, Any]:
    """What a daemon of a machine printed; without a name its first one."""
    names = lab.daemons.names(netns)
    if not names or (name is not None and name not in names):
        there = f"it has {', '.join(names)}" if names else "only pods and machines with daemons have logs"
        raise InputError(f"{netns}: no daemon {name or 'runs there'}; {there}")
    path = lab.daemons.log_path(netns, name or names[0])
    text = path.read_text(errors="replace") if path.exists() else ""
    return {"text": text, "offset": 0, "run": 0, "ended": True, "note": ""}


class _Waiting:
    """One reader of one file."""

    def __init__(self, lab: Lab, ref: Ref, container: Container, path: Path, offset: int, run: int | None, later: Later) -> None:
        self._lab, self._ref, self._container, self._path, self._later = lab, ref, container, path, later
        self._offset, self._run = offset, run

    def look(self, deadline: float) -> None:
        status = self._status()
        data = b""
        if status is not None and status.state == "running" and status.restarts != self._run:
            if self._run is not None:  # another run has begun: what the one before it printed last, then its own
                data, _ = _read(self._lab.processes.log_path(self._ref, self._container.name, previous=True), self._offset)
                self._offset = 0
            self._run = status.restarts
        more, self._offset = _read(self._path, self._offset)
        data += more
        ended = status is None or status.state == "ended"
        if data or ended or self._lab.loop.now() >= deadline:
            text = data.decode(errors="replace")
            self._later(True, {"text": text, "offset": self._offset, "run": self._run, "ended": ended, "note": ""})
        else:
            self._lab.loop.after(LOOK_S, lambda: self.look(deadline))

    def _status(self) -> ContainerStatus | None:
        """How the container is; None when its pod is gone."""
        pod = self._lab.cluster.pods.get(Key(self._ref.namespace, self._ref.name))
        return next((one for one in pod.statuses if one.name == self._container.name), None) if pod is not None else None


def _read(path: Path, offset: int) -> tuple[bytes, int]:
    """(what the file holds behind the offset, the new offset)"""
    if not path.exists():
        return b"", offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    return data, offset + len(data)
