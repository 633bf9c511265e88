"""Agents: the lab's own child processes, and the wire between them and the holder.

An agent is forked from the holder and serves requests one at a time: (id, method, arguments) in, (id, ok, answer) out,
pickled, over a socket pair that only these two hold. The holder is single-threaded and never waits for an agent, except in
`call`, which is for what must be finished before it goes on (rules in the kernel, listeners open). When an agent dies, its
socket closes: that is how the holder learns of it. An agent whose holder is gone reads end-of-file and ends; being in the
same pid namespace it is gone anyway.

Namespaces are handed to agents as paths, `/proc/PID/fd/N`, which the holder keeps open: nothing is passed that could leak.
"""

import contextlib
import os
import pickle
import select
import signal
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from netlab.errors import KernelError, NetlabError

_HEADER = struct.Struct("!Q")
Method = Callable[..., Any]
Rest = tuple[float, Callable[[], None]]
Reply = Callable[[bool, Any], None]
"""Called once with (ok, answer); where not ok, the answer is the exception."""


class AgentGone(KernelError):
    """The agent died, or was killed because it did not answer, before it answered."""


def send(sock: socket.socket, message: Any) -> None:
    """Write one message; blocks until the other side has taken it."""
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    sock.sendall(_HEADER.pack(len(data)) + data)


def receive(sock: socket.socket) -> Any:
    """Read one message. Raises EOFError when the other side has gone."""
    (length,) = _HEADER.unpack(_exactly(sock, _HEADER.size))
    return pickle.loads(_exactly(sock, length))


def _exactly(sock: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = sock.recv(min(1 << 20, length - len(parts)))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def close_other_fds(*kept: int) -> None:
    """Close every descriptor of this process but 0, 1, 2 and `kept`."""
    low = 3
    for fd in sorted({fd for fd in kept if fd >= 3}):
        os.closerange(low, fd)
        low = fd + 1
    limit = os.sysconf("SC_OPEN_MAX")
    with contextlib.suppress(OSError):
        limit = max((int(path.name) for path in Path("/proc/self/fd").iterdir()), default=low) + 1
    os.closerange(low, limit)


def fork(main: Callable[[], None], *kept: int) -> int:
    """The pid of a child that runs `main` with no descriptor but the standard ones and `kept`, and never returns."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        close_other_fds(*kept)
        main()
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


@dataclass(slots=True)
class Agent:
    """The holder's end of one agent."""

    name: str
    pid: int
    sock: socket.socket
    _next: int = 0
    _waiting: dict[int, Reply] = field(default_factory=dict)

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def request(self, reply: Reply, method: str, *arguments: Any) -> None:
        """Ask; `reply` is called from `on_readable` when the answer is there, or from `on_gone`."""
        self._next += 1
        self._waiting[self._next] = reply
        try:
            send(self.sock, (self._next, method, arguments))
        except OSError:
            self._waiting.pop(self._next, None)
            reply(False, AgentGone(f"the lab's {self.name} process is gone"))

    def call(self, method: str, *arguments: Any, deadline_s: float | None = None) -> Any:
        """Ask and wait for the answer. Raises what the agent raised, or AgentGone.

        One that has not answered after `deadline_s` is stopped or stuck: it is killed, and gone.
        """
        answers: list[tuple[bool, Any]] = []
        self.sock.settimeout(deadline_s)
        try:
            self.request(lambda ok, answer: answers.append((ok, answer)), method, *arguments)
            while not answers:
                self.on_readable()
        finally:
            self.sock.settimeout(None)
        ok, answer = answers[0]
        if not ok:
            raise answer
        return answer

    def on_readable(self) -> bool:
        """Take one answer; False when the agent has gone (every waiting reply is then told)."""
        try:
            number, ok, answer = receive(self.sock)
        except (EOFError, OSError) as error:
            if isinstance(error, TimeoutError):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self.on_gone()
            return False
        reply = self._waiting.pop(number)
        reply(ok, answer)
        return True

    def wait_for_end(self) -> None:
        """Until the kernel has freed all that it held, after it has gone: whoever takes its place needs the same ports.

        A process that is killed closes its descriptors one by one, and the wire is among the first. It is killed here as well,
        should it only have closed the wire. Costs what its sockets cost to close: nothing for listeners, much for packet sockets.
        """
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it was taken in already
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                os.kill(self.pid, signal.SIGKILL)
                os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def on_gone(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for reply in waiting.values():
            reply(False, AgentGone(f"the lab's {self.name} process died in the middle of the work"))


def spawn(name: str, serve: Callable[[socket.socket], None], *kept: int) -> Agent:
    """Fork an agent that runs `serve(its end of the wire)`."""
    ours, theirs = socket.socketpair()
    pid = fork(lambda: serve(theirs), theirs.fileno(), *kept)
    theirs.close()
    return Agent(name, pid, ours)


def answer_one(sock: socket.socket, methods: Mapping[str, Method]) -> None:
    """Take one request and answer it. Raises EOFError when the holder has gone."""
    number, method, arguments = receive(sock)
    try:
        answer, ok = methods[method](*arguments), True
    except NetlabError as error:
        answer, ok = error, False
    except Exception as error:  # a bug in an agent reaches whoever asked, with its place
        import traceback

        answer, ok = KernelError(f"{method}: {error!r}\n{traceback.format_exc()}"), False
    send(sock, (number, ok, answer))


def answer_or_end(sock: socket.socket, methods: Mapping[str, Method]) -> None:
    """Answer one request; where the holder has gone, end this process."""
    try:
        answer_one(sock, methods)
    except (EOFError, ConnectionError):
        raise SystemExit(0) from None


def serve_forever(sock: socket.socket, methods: Mapping[str, Method], rest: Rest | None = None) -> NoReturn:
    """Answer requests until the holder has gone, then end. `rest`: what to do when there was no request for so many seconds."""
    poller = select.poll()  # a descriptor's number may be beyond what select() takes
    poller.register(sock, select.POLLIN)
    while True:
        if rest is not None and not poller.poll(rest[0] * 1000):
            rest[1]()
        answer_or_end(sock, methods)
