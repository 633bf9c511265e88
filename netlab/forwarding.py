"""`port-forward`: listens on an address of the caller and connects inside a pod, without a packet between the two networks.

Theory. Two children are forked before anything listens. One joins the lab and opens sockets in the pod's network namespace when
it is asked to; each goes back to the caller as a descriptor, which the caller then pumps against the client's. The other
waits until the pod is gone. The caller itself stays where it is. As kubectl does, the connection goes to the pod's own localhost.
"""

import contextlib
import os
import selectors
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from netlab.errors import InputError, LabGone
from netlab.kernel import agent, context
from netlab.kernel import namespaces as ns

if TYPE_CHECKING:
    from netlab.client import Lab

CHUNK = 1 << 16
CONNECT_S = 5.0


class Forward(NamedTuple):
    """One port: where the caller listens (0: any free one) and what it stands for inside the pod."""

    local: int
    remote: int


@dataclass(slots=True, eq=False)
class _Half:
    """One direction of a connection: what was read from `source` and not yet written to `target`."""

    source: socket.socket
    target: socket.socket
    data: bytearray = field(default_factory=bytearray)
    ended: bool = False
    closed: bool = False


class Forwarding:
    """One `port-forward` at work. `say` gets a line for standard output, `complain` one for standard error."""

    def __init__(
        self, lab: "Lab", target: dict[str, str | int], say: Callable[[str], None], complain: Callable[[str], None]
    ) -> None:
        self._say, self._complain = say, complain
        self._selector = selectors.DefaultSelector()
        self._door, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        gone, gone_w = os.pipe()
        pod = {key: target[key] for key in ("namespace", "name", "uid")}
        fd = os.open(f"/proc/{lab.pid}/fd/{target['fd']}", os.O_RDONLY)
        self._children = [
            agent.fork(lambda: _connect_for(theirs, lab.pid, fd), theirs.fileno(), fd),
            agent.fork(lambda: _wait_for(lab, pod), gone_w),
        ]
        for one in (fd, gone_w):
            os.close(one)
        theirs.close()
        self._gone = gone

    def listen(self, addresses: Sequence[str], ports: Sequence[Forward]) -> None:
        """Open every port at every address. Raises InputError when none can be opened."""
        opened = 0
        for forward in ports:
            for address in addresses:
                try:
                    listener = _listener(address, forward.local)
                except OSError as error:
                    self._complain(f"Unable to listen on port {forward.local}: {address}: {error.strerror or error}")
                    continue
                opened += 1
                port = listener.getsockname()[1]
                shown = f"[{address}]" if ":" in address else address
                self._say(f"Forwarding from {shown}:{port} -> {forward.remote}")
                self._watch(listener, partial(self._accept, listener, forward.remote))
        if not opened:
            wanted = ", ".join(f"{{{one.local} {one.remote}}}" for one in ports)
            raise InputError(f"unable to listen on any of the requested ports: [{wanted}]")

    def run(self) -> None:
        """Forward until the pod is gone. Raises LabGone then."""
        self._selector.register(self._gone, selectors.EVENT_READ, None)
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    raise LabGone("lost connection to pod")
                if self._selector.get_map().get(key.fd) is key:
                    key.data()

    def close(self) -> None:
        """Let go of everything; connections are cut."""
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, socket.socket):
                key.fileobj.close()
        self._selector.close()
        self._door.close()
        os.close(self._gone)
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
            os.waitpid(pid, 0)

    def _watch(self, sock: socket.socket, call: Callable[[], None], events: int = selectors.EVENT_READ) -> None:
        sock.setblocking(False)
        self._selector.register(sock, events, call)

    def _accept(self, listener: socket.socket, remote: int) -> None:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        local = listener.getsockname()[1]
        self._say(f"Handling connection for {local}")
        inside, error = self._connected(remote)
        if inside is None:
            self._complain(f"an error occurred forwarding {local} -> {remote}: {error}")
            client.close()
            return
        there, back = _Half(client, inside), _Half(inside, client)
        for half, other in ((there, back), (back, there)):
            self._watch(half.source, partial(self._pump, half, other))

    def _connected(self, remote: int) -> tuple[socket.socket | None, str]:
        self._door.send(str(remote).encode())
        words, fds, _, _ = socket.recv_fds(self._door, 1024, 1)
        return (socket.socket(fileno=fds[0]), "") if fds else (None, words.decode() or "lost connection to pod")

    def _pump(self, half: _Half, other: _Half) -> None:
        """Take what has come in, and write what can be written, in both directions."""
        if not half.ended and not half.data:
            try:
                chunk = half.source.recv(CHUNK)
            except BlockingIOError:
                chunk = None
            except OSError:
                return self._cut(half)
            if chunk is not None:
                half.data += chunk
                half.ended = not chunk
        for one in (half, other):
            if not self._write(one):
                return self._cut(half)
        if half.closed and other.closed:
            return self._cut(half)
        for one, its in ((half, other), (other, half)):
            events = (selectors.EVENT_READ if not one.ended and not one.data else 0) | (selectors.EVENT_WRITE if its.data else 0)
            self._listen_for(one, its, events)
        return None

    def _listen_for(self, half: _Half, other: _Half, events: int) -> None:
        """A direction that has ended and has nothing to write is not asked about any more."""
        known = half.source.fileno() in self._selector.get_map()
        call = partial(self._pump, half, other)
        if events and known:
            self._selector.modify(half.source, events, call)
        elif events:
            self._selector.register(half.source, events, call)
        elif known:
            self._selector.unregister(half.source)

    def _write(self, half: _Half) -> bool:
        """False when the other side has gone."""
        try:
            while half.data:
                del half.data[: half.target.send(half.data)]
            if half.ended and not half.closed:
                half.closed = True
                half.target.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return True

    def _cut(self, half: _Half) -> None:
        for sock in (half.source, half.target):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(sock)
            sock.close()


def _listener(address: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _wait_for(lab: "Lab", pod: dict[str, str | int]) -> None:
    """A child: it ends, and with it its end of the pipe, when the pod or the lab is gone."""
    with contextlib.suppress(LabGone):
        lab.verb("wait-gone", **pod)


def _connect_for(door: socket.socket, holder: int, netns: int) -> None:
    """A child inside the pod: for each port that is asked for, a connected socket or the reason why there is none."""
    context.Holder(holder).join()
    ns.setns(netns, ns.CLONE_NEWNET)
    os.close(netns)
    while request := door.recv(64):
        error: OSError | None = None
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.settimeout(CONNECT_S)
                try:
                    sock.connect((address, int(request)))
                except OSError as refused:
                    error = error or refused
                    continue
                socket.send_fds(door, [b"ok"], [sock.fileno()])
                break
        else:
            assert error is not None
            door.send(f"connect to localhost:{int(request)} inside the pod: {(error.strerror or str(error)).lower()}".encode())
