"""get -w: a line for every object that changes, as kubectl prints it, until Ctrl-C or the lab's end.

The lab's journal says that something has changed; what it was is found by asking again, so that a line always shows a state
that there was. Objects that are gone are shown once more as they were last seen, pods as Terminating.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from netlab.cli.kernel_objects import FROM_THE_KERNEL
from netlab.cli.showing import Shown, print_objects, table_of
from netlab.errors import ApiError, InputError

if TYPE_CHECKING:
    from netlab.cli.following import Following
    from netlab.client import Lab

Json = dict[str, Any]
Requests = Sequence[tuple[str, str | None]]


def follow(
    running: "Lab",
    requests: Requests,
    fetched: Callable[[str, str | None], list[Json]],
    found: Sequence[tuple[str, list[Json]]],
    how: Shown,
    form: str | None,
) -> None:
    """Print what changes after `found`. Raises LabGone when the lab ends."""
    if len({kind for kind, _ in requests}) > 1:
        raise InputError("you may only specify a single resource type with -w")
    if any(kind in FROM_THE_KERNEL for kind, _ in requests):
        raise InputError("-w follows Kubernetes' objects; `netlab events` follows the kernel's")
    from netlab.cli.following import Following

    known = keyed(found)
    stream = Following(running, kernel=False)
    headed = bool(known) or form not in (None, "wide")
    for changed in changes(stream, requests, fetched, known):
        if form in (None, "wide"):
            text = table_of(changed, how, prefix=False)
            print(text if not headed else text.partition("\n")[2], end="", flush=True)
            headed = True
        else:
            for item in changed:
                print_objects([("", [item])], str(form), single=True)


def keyed(found: Sequence[tuple[str, list[Json]]]) -> dict[str, Json]:
    """Objects by what tells one from another of the same name."""
    return {str(item["metadata"].get("uid") or key(item)): item for _, group in found for item in group}


def key(item: Json) -> str:
    return f"{item['metadata'].get('namespace', '')}/{item['metadata']['name']}"


def changes(
    stream: "Following", requests: Requests, fetched: Callable[[str, str | None], list[Json]], known: dict[str, Json]
) -> Iterator[list[Json]]:
    """Each time something has changed, the objects that did: gone ones as they were, then changed and new ones."""
    while True:
        again = keyed([(kind, found_now(fetched, kind, name)) for kind, name in requests])
        gone = [ended(item) for uid, item in known.items() if uid not in again]
        new = [item for uid, item in again.items() if known.get(uid) != item]
        known = again
        if gone or new:
            yield [*gone, *new]
        stream.ready(None)


def ended(item: Json) -> Json:
    """An object that is gone, in the API's last words: a pod has the time of its deletion, unless it had ended before."""
    over = (item.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if item.get("kind") != "Pod" or over or item["metadata"].get("deletionTimestamp"):
        return item
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**item, "metadata": {**item["metadata"], "deletionTimestamp": now, "deletionGracePeriodSeconds": 0}}


def found_now(fetched: Callable[[str, str | None], list[Json]], kind: str, name: str | None) -> list[Json]:
    try:
        return fetched(kind, name)
    except ApiError as error:
        if error.code != 404:
            raise
        return []
