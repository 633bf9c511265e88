"""/dial of the built-in responder: requests made from inside a pod, one after the other, none of which ever blocks the loop.

Decides how one request of /dial is made and what counts as its response. Refuses to know who asked.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from netlab.agents.answers import Answer, Dial, PodFacts, host_port
from netlab.kernel.namespaces import entered

TRY_S = 5.0
MAX_RESPONSE_BYTES = 1024 * 1024
_EVENTS_OUT, _EVENTS_IN = 4, 1  # EPOLLOUT, EPOLLIN

Add = Callable[[socket.socket, Callable[[int], None], int], None]
Change = Callable[[socket.socket, int], None]
Remove = Callable[[socket.socket], None]


@dataclass(slots=True, eq=False)
class Dialling:
    """One /dial under way. `add`, `change` and `remove` are the loop's; `done` is called once. Owns `netns_fd`."""

    dial: Dial
    pod: PodFacts
    netns_fd: int
    add: Add
    change: Change
    remove: Remove
    clock: Callable[[], float]
    done: "Callable[[Dialling, Answer], None]"
    deadline: float = 0.0
    responses: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    sock: socket.socket | None = None
    inbox: bytearray = field(default_factory=bytearray)
    sent: bool = False
    _running: bool = False
    _again: bool = False

    def start(self) -> None:
        """Begin the next try, or finish. Tries that fail at once are taken in a loop, not by recursion."""
        self._again = True
        if self._running:
            return
        self._running = True
        while self._again:
            self._again = False
            if len(self.responses) + len(self.errors) >= self.dial.tries:
                self._end()
                return
            self._try()
        self._running = False

    def abandon(self) -> None:
        """Close what is open, without an answer."""
        if self.sock is not None:
            self.remove(self.sock)
            self.sock = None
        os.close(self.netns_fd)

    def expire(self) -> None:
        """The current try has taken too long."""
        self._failed("timed out")

    def _try(self) -> None:
        self.deadline = self.clock() + TRY_S
        self.inbox.clear()
        self.sent = False
        host = self.pod.hosts.get(self.dial.host, self.dial.host)
        try:
            family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
        except ValueError:
            self._failed(f"lookup {host}: the built-in responder dials addresses and the pod's own /etc/hosts names only")
            return
        try:
            with entered(self.netns_fd):
                self.sock = _socket(family, self.dial.protocol)
            self.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                self.sock.connect((host, self.dial.port))
            self.add(self.sock, self._ready, _EVENTS_OUT)
        except OSError as error:
            if self.sock is not None:
                self.sock.close()
                self.sock = None
            self._failed(error.strerror or str(error))

    def _ready(self, events: int) -> None:
        """The socket is connected, or has data, or has failed."""
        assert self.sock is not None
        try:
            problem = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if problem:
                self._failed(os.strerror(problem))
                return
            if not self.sent:
                self.sock.send(self._request())
                self.sent = True
                self.change(self.sock, _EVENTS_IN)
                return
            data = self.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError as error:
            self._failed(error.strerror or str(error))
            return
        self._received(data)

    def _request(self) -> bytes:
        if self.dial.protocol != "http":
            return self.dial.request.encode()
        path = self.dial.request.lstrip("/").replace(" ", "%20").replace("\r", "").replace("\n", "")
        authority = host_port(self.dial.host, self.dial.port)
        return f"GET /{path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: netlab\r\nConnection: close\r\n\r\n".encode()

    def _received(self, data: bytes) -> None:
        self.inbox += data
        if self.dial.protocol != "http":
            if data:
                self._succeeded(self.inbox.decode("utf-8", "replace"))
            else:
                self._failed("connection closed without a response")
            return
        if len(self.inbox) > MAX_RESPONSE_BYTES:
            self._failed("response too large")
            return
        body = response_body(self.inbox, ended=not data)
        if body is not None:
            self._succeeded(body.decode("utf-8", "replace"))
        elif not data:
            self._failed("connection closed in the middle of the response")

    def _succeeded(self, text: str) -> None:
        self.responses.append(text)
        self._next()

    def _failed(self, text: str) -> None:
        self.errors.append(f"{self.dial.protocol} {host_port(self.dial.host, self.dial.port)}: {text}")
        self._next()

    def _next(self) -> None:
        if self.sock is not None:
            self.remove(self.sock)
            self.sock = None
        self.start()

    def _end(self) -> None:
        os.close(self.netns_fd)
        output = {"responses": self.responses} if self.responses else {}
        if self.errors:
            output["errors"] = self.errors
        self.done(self, Answer(json.dumps(output)))


def _socket(family: int, protocol: str) -> socket.socket:
    if protocol == "udp":
        return socket.socket(family, socket.SOCK_DGRAM)
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP if protocol == "sctp" else 0)


def response_body(data: bytearray | bytes, ended: bool) -> bytes | None:
    """The body of an HTTP/1.x response; None while it is not complete. `ended`: the peer closed."""
    data = bytes(data)
    head, separator, body = data.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"HTTP/1."):
        return None
    headers = head.lower().split(b"\r\n")[1:]
    for header in headers:
        name, _, value = header.partition(b":")
        if name == b"content-length" and value.strip().isdigit() and len(value) < 20:
            length = int(value)
            return body[:length] if len(body) >= length else None
        if name == b"transfer-encoding" and b"chunked" in value:
            return _dechunked(body)
    if head.split(b" ")[1:2] in ([b"204"], [b"304"]):
        return b""
    return body if ended else None


def _dechunked(body: bytes) -> bytes | None:
    parts: list[bytes] = []
    while True:
        size_text, separator, rest = body.partition(b"\r\n")
        if not separator:
            return None
        try:
            size = int(size_text.split(b";")[0], 16)
        except ValueError:
            return None
        if size < 0:
            return None
        if size == 0:
            return b"".join(parts)
        if len(rest) < size + 2:
            return None
        parts.append(rest[:size])
        body = rest[size + 2 :]
