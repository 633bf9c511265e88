"""`GET /netlab/v1/events`: the journal as a stream of JSON lines, one connection a follower."""

import json
from collections.abc import Callable
from typing import Any

from netlab.errors import ApiError
from netlab.lab.holder import Lab
from netlab.lab.http import Request, Respond, Stream
from netlab.numerals import natural


def follow(lab: Lab, request: Request, respond: Respond) -> None:
    """?last=N: begin with what the lab remembers. The stream ends when the client goes, or with the lab."""
    given = request.query.get("last") or "0"
    last = natural(given)
    if last is None:
        raise ApiError(400, "BadRequest", f"last={given[:80]}: a number of events")

    def start(push: Callable[[bytes], None]) -> Callable[[], None]:
        for event in lab.journal.recent(last):
            push(_line(event))
        return lab.journal.follow(lambda event: push(_line(event)))

    respond(Stream(start))


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"
