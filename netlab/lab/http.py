"""HTTP/1.1 over the lab's Unix socket: bytes in, requests out; h11 knows the protocol, this file only the sockets.

A handler gets a Request and a `respond` function, which it calls once, now or later; a client that hangs up meanwhile is no
error.
"""

import contextlib
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from netlab.errors import ApiError
from netlab.lab.loop import Loop

MAXIMUM_BODY_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is split at the slashes and unquoted; `query` holds the last value of each name."""

    method: str
    path: tuple[str, ...]
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body; None where there is none. Raises ApiError."""
        try:
            return json.loads(self.body) if self.body else None
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "BadRequest", f"the body is no JSON: {error}") from None


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer without an end: JSON lines. `start` is given `push(bytes)` and answers what stops it; it is stopped when the
    client hangs up, or does not read: MAXIMUM_BEHIND_BYTES are kept for it."""

    start: Callable[[Callable[[bytes], None]], Callable[[], None]]
    content_type: str = "application/json-seq"


MAXIMUM_BEHIND_BYTES = 16 << 20
Respond = Callable[[Response | Stream], None]
Handler = Callable[[Request, Respond], None]


@dataclass(frozen=True, slots=True)
class Rendered:
    """A JSON document that is text already."""

    body: bytes


def json_response(document: Any, status: int = 200) -> Response:
    return Response(status, document.body if isinstance(document, Rendered) else json.dumps(document).encode())


class Server:
    """Accepts on a listening socket and hands every request to `handler`."""

    def __init__(self, loop: Loop, listener: socket.socket, handler: Handler) -> None:
        self._loop, self._listener, self._handler = loop, listener, handler
        listener.setblocking(False)
        loop.watch(listener, self._accept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            sock, _ = self._listener.accept()
            _Connection(self._loop, sock, self._handler)


class _Connection:
    def __init__(self, loop: Loop, sock: socket.socket, handler: Handler) -> None:
        self._loop, self._sock, self._handler = loop, sock, handler
        self._h11 = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = bytearray()
        self._out = bytearray()
        self._closed = False
        self._stop: Callable[[], None] | None = None
        sock.setblocking(False)
        loop.watch(sock, self._readable)

    def _readable(self) -> None:
        try:
            data = self._sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        if not data and (self._stop is not None or self._h11.their_state is not h11.IDLE):
            # The client hung up in the middle, or after its request: nobody is left to answer.
            self._close()
            return
        try:
            self._h11.receive_data(data)
            self._events()
        except h11.RemoteProtocolError as error:
            self._send(Response(error.error_status_hint, str(error).encode(), "text/plain"))
            self._close()

    def _events(self) -> None:
        while not self._closed:
            event = self._h11.next_event()
            match event:
                case h11.Request():
                    self._request = event
                    self._body.clear()
                case h11.Data():
                    self._body += event.data
                    if len(self._body) > MAXIMUM_BODY_BYTES:
                        self._send(Response(413, b"the request is too large", "text/plain"))
                        self._close()
                case h11.EndOfMessage():
                    self._dispatch()
                case h11.ConnectionClosed():
                    self._close()
                case _:
                    return

    def _dispatch(self) -> None:
        assert self._request is not None
        url = urlsplit(self._request.target.decode("latin-1"))
        request = Request(
            self._request.method.decode(),
            tuple(unquote(part) for part in url.path.split("/") if part),
            dict(parse_qsl(url.query, keep_blank_values=True)),
            {name.decode().lower(): value.decode("latin-1") for name, value in self._request.headers},
            bytes(self._body),
        )
        self._handler(request, self._send)

    def _stream(self, stream: Stream) -> None:
        head = h11.Response(status_code=200, headers=[("Content-Type", stream.content_type), ("Transfer-Encoding", "chunked")])
        self._out += self._h11.send(head) or b""
        self._flush()
        self._stop = stream.start(self._push)

    def _push(self, data: bytes) -> None:
        if self._closed:
            return
        self._out += self._h11.send(h11.Data(data=data)) or b""
        if len(self._out) > MAXIMUM_BEHIND_BYTES:
            self._close()
        else:
            self._flush()

    def _send(self, response: Response | Stream) -> None:
        if self._closed:
            return
        if isinstance(response, Stream):
            self._stream(response)
            return
        headers = [("Content-Type", response.content_type), ("Content-Length", str(len(response.body)))]
        with contextlib.suppress(h11.LocalProtocolError):
            for event in (
                h11.Response(status_code=response.status, headers=headers),
                h11.Data(data=response.body),
                h11.EndOfMessage(),
            ):
                self._out += self._h11.send(event) or b""
            if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
                self._h11.start_next_cycle()
        self._flush()

    def _flush(self) -> None:
        if self._closed:
            return
        try:
            sent = self._sock.send(self._out)
            del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._close()
            return
        if self._out:
            self._loop.when_writable(self._sock, self._flush)
        elif self._h11.our_state is h11.MUST_CLOSE:
            self._close()
        else:
            self._loop.when_readable(self._sock, self._readable)
            self._events()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._stop is not None:
                self._stop()
            self._loop.forget(self._sock)
            self._sock.close()
