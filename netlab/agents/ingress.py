"""The agent of one Ingress controller pod: runs the real proxy in the pod's namespace and gives it every new table.

Decides how a change reaches each proxy and when it has: HAProxy by commands on its runtime socket (a reload only where the
allocated room or the certificates do not do), nginx by a reload that is waited for, Traefik by the file that it watches. A
proxy that died is started again. It dies with this process, and this process with the holder.
"""

import contextlib
import ctypes
import os
import select
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from netlab.errors import KernelError
from netlab.images import ProxyName
from netlab.ingress import haproxy, nginx, traefik
from netlab.ingresses import ADMIN_PORT, HTTP_PORT, Table
from netlab.kernel import agent
from netlab.kernel import namespaces as ns
from netlab.kernel.keeping import Keeping

READY_S = 10.0
SOCKET = "runtime.sock"
"""HAProxy's, in the directory in which both processes are: a Unix socket's path holds only 107 bytes."""
ASK_AGAIN_S = 0.005
"""How soon a program is asked again whether it has taken in what it was told: none of them tells by itself."""
FINISH_S = 0.5
"""How long nginx' old workers are waited for after a reload."""
_PR_SET_PDEATHSIG = 1


class Program:
    """What the drivers share: a directory, the program, its children and what they said."""

    def __init__(self, directory: str, program: str, executable: str) -> None:
        self.directory, self.program, self._executable = Path(directory), program, executable
        self.child: subprocess.Popen[bytes] | None = None
        self.former: list[subprocess.Popen[bytes]] = []
        (self.directory / "temporary").mkdir(parents=True, exist_ok=True)

    def write(self, files: Mapping[str, str]) -> None:
        """Each file at once: whoever reads it sees the old one or the new one."""
        for name, text in files.items():
            path = self.directory / f".{name}"
            path.touch(mode=0o600)
            path.write_text(text)
            path.rename(self.directory / name)

    def spawn(self, command: list[str]) -> "subprocess.Popen[bytes]":
        command[0] = self._executable
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                cwd=self.directory,
                start_new_session=True,
            )

    def until(self, holds: Callable[[], bool], child: "subprocess.Popen[bytes]", what: str) -> None:
        """Wait until it holds. Raises KernelError when the program ends or takes too long, with its own words."""
        deadline = time.monotonic() + READY_S
        with _ends((child.pid,)) as ends:
            while not holds():
                if child.poll() is not None or time.monotonic() > deadline:
                    state = f"ended with {child.returncode}" if child.poll() is not None else f"did not within {READY_S:g} s"
                    raise KernelError(f"{self.program} {what}: it {state}; it said: {self.said() or '(nothing)'}")
                select.select(ends, (), (), ASK_AGAIN_S)

    def said(self) -> str:
        """The end of what the program wrote."""
        texts = [path.read_text(errors="replace") for path in map(self.directory.joinpath, ("log", "error.log")) if path.exists()]
        return " / ".join(line.strip() for text in texts for line in text.splitlines()[-4:])[-800:]


@contextlib.contextmanager
def _ends(pids: Iterable[int]) -> "Iterator[set[int]]":
    """Descriptors that can be read when these processes, children or not, have ended; those that have already are left out."""
    with contextlib.ExitStack() as stack:
        found = set()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                fd = os.pidfd_open(pid)
                stack.callback(os.close, fd)
                found.add(fd)
        yield found


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # nginx must still end its workers


class Haproxy(Program):
    """Changes through the runtime socket; a reload hands the listening sockets to the new process."""

    def __init__(self, directory: str, executable: str, ipv6: bool) -> None:
        super().__init__(directory, "haproxy", executable)
        self._ipv6 = ipv6
        self._table = Table()
        self._allocation = haproxy.fresh(self._table)
        self.reloads = 0

    def configure(self, table: Table) -> None:
        after = haproxy.allocated(table, self._allocation)
        if self.child is None or after is None or table.certificates != self._table.certificates:
            self._table, self._allocation = table, after or haproxy.fresh(table)
            self.start()
            return
        commands = haproxy.commands((self._table, self._allocation), (table, after))
        self._table, self._allocation = table, after
        self._say(commands)

    def start(self) -> None:
        self.write(haproxy.files(self._table, self._allocation, self._ipv6))
        command = haproxy.command("haproxy")
        old = self.child if self.child is not None and self.child.poll() is None else None
        if old is not None:
            command += ["-x", SOCKET, "-sf", str(old.pid)]
            self.former.append(old)
            self.reloads += 1
        self.child = child = self.spawn(command)
        self.until(lambda: f"Pid: {child.pid}\n" in self._ask("show info"), child, "does not start")

    def drift(self) -> list[str]:
        shown = {name: self._ask(f"show map {name}.map") for name in haproxy.MAPS}
        return haproxy.drift(self._table, self._allocation, shown, self._ask("show servers state"))

    def _say(self, commands: list[str]) -> None:
        """Many commands at a time. Whatever is refused, a reload with the whole new configuration puts right."""
        while commands:
            some, commands = commands[:50], commands[50:]
            lines = [line for line in self._ask("; ".join(some)).splitlines() if line.strip()]
            wrong = [line for line in lines if not line.startswith(("IP changed", "port changed", "no need to change"))]
            if wrong:
                print(f"haproxy refused a change, so it is reloaded: {'; '.join(wrong)}", flush=True)
                self.start()
                return

    def _ask(self, text: str) -> str:
        found = bytearray()
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(2.0)
            sock.connect(SOCKET)
            sock.sendall(text.encode() + b"\n")
            while part := sock.recv(65536):
                found += part
        return found.decode(errors="replace")


class Nginx(Program):
    """A reload for every change; it is over when the admin page tells the new generation three times running."""

    def __init__(self, directory: str, executable: str, ipv6: bool) -> None:
        super().__init__(directory, "nginx", executable)
        self._ipv6 = ipv6
        self._table = Table()
        self._generation = 0

    def configure(self, table: Table) -> None:
        self._table = table
        self._generation += 1
        if self.child is None or self.child.poll() is not None:
            self.start()
            return
        before = self._workers()
        self.write(nginx.files(str(self.directory), table, self._generation, self._ipv6))
        self.child.send_signal(signal.SIGHUP)
        self.until(self._in_force, self.child, "does not take the new configuration")
        self._let_go(before)

    def start(self) -> None:
        if self.child is not None and self.child.poll() is None:
            self.child.terminate()
            self.child.wait(READY_S)
        self.write(nginx.files(str(self.directory), self._table, self._generation, self._ipv6))
        self.child = self.spawn(nginx.command(str(self.directory), "nginx"))
        self.until(self._in_force, self.child, "does not start")

    def _in_force(self) -> bool:
        return all(_get(ADMIN_PORT, nginx.GENERATION_PATH).endswith(f"\r\n\r\n{self._generation}\n") for _ in range(3))

    def drift(self) -> list[str]:
        wanted = nginx.files(str(self.directory), self._table, self._generation, self._ipv6)
        changed = [name for name, text in wanted.items() if (self.directory / name).read_text() != text]
        told = [] if self._in_force() else ["it does not run with its last configuration"]
        return [f"its file {name} was changed" for name in changed] + told

    def _workers(self) -> set[str]:
        assert self.child is not None
        with contextlib.suppress(OSError):
            return set(Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split())
        return set()

    def _let_go(self, workers: set[str]) -> None:
        """Until the old workers have finished what they took, which they may have sent to pods that go next; not for ever."""
        deadline = time.monotonic() + FINISH_S
        with _ends(map(int, workers)) as waiting:
            while waiting and (left := deadline - time.monotonic()) > 0:
                waiting -= set(select.select(waiting, (), (), left)[0])


class Traefik(Program):
    """Reads the file that it watches; when it has is not known."""

    def __init__(self, directory: str, executable: str, ipv6: bool) -> None:
        super().__init__(directory, "traefik", executable)
        self._table = Table()

    def configure(self, table: Table) -> None:
        self._table = table
        if self.child is None or self.child.poll() is not None:
            self.start()
        else:
            files = traefik.files(str(self.directory), table)
            self.write({name: text for name, text in files.items() if name != "traefik.yml"})

    def drift(self) -> list[str]:
        return []

    def start(self) -> None:
        self.write(traefik.files(str(self.directory), self._table))
        self.child = self.spawn(traefik.command(str(self.directory), "traefik"))
        self.until(lambda: bool(_get(HTTP_PORT, "/")), self.child, "does not start")


def _get(port: int, path: str) -> str:
    """What the machine itself answers, '' when it does not."""
    found = bytearray()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 2.0) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\nHost: netlab\r\n\r\n".encode())
        while part := sock.recv(65536):
            found += part
    return found.decode(errors="replace")


_DRIVERS: Mapping[ProxyName, Callable[[str, str, bool], "Haproxy | Nginx | Traefik"]] = {
    "haproxy": Haproxy,
    "nginx": Nginx,
    "traefik": Traefik,
}


class Server:
    """Answers the holder, and looks after the proxy."""

    def __init__(self, wire: socket.socket, driver: "Haproxy | Nginx | Traefik") -> None:
        self._wire, self._driver = wire, driver
        self._selector = selectors.DefaultSelector()
        self._selector.register(wire, selectors.EVENT_READ)
        self._watched: dict[int, int] = {}
        self._keeping = Keeping()
        self._due: float | None = None
        """When a proxy that ended is started again; until then the holder is answered all the same."""

    def run(self) -> NoReturn:
        methods: dict[str, agent.Method] = {
            "configure": self._configure,
            "repair": self._repair,
            "drift": self._drift,
            "state": self._state,
            "stop": self._stop,
        }
        while True:
            self._watch()
            for key, _ in self._selector.select(None if self._due is None else max(0.0, self._due - time.monotonic())):
                if key.fileobj is self._wire:
                    agent.answer_or_end(self._wire, methods)
                else:
                    self._ended(key.fd)
            if self._due is not None and time.monotonic() >= self._due:
                self._start_again()

    def _configure(self, table: Table) -> None:
        self._driver.configure(table)

    def _repair(self) -> None:
        """Give the proxy its whole configuration anew."""
        self._driver.start()

    def _drift(self) -> list[str]:
        """What differs from the last table; that the proxy does not run, where that is so."""
        child = self._driver.child
        if child is None or child.poll() is not None:
            return ["it does not run"]
        return self._driver.drift()

    def _state(self) -> dict[str, Any]:
        child = self._driver.child
        reloads = getattr(self._driver, "reloads", 0)
        return {
            "pid": child.pid if child is not None and child.poll() is None else 0,
            "restarts": self._keeping.restarts,
            "reloads": reloads,
        }

    def _stop(self) -> None:
        """End the proxy, and what is left of those before it."""
        for child in (*self._driver.former, self._driver.child):
            if child is not None and child.poll() is None:
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(READY_S)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
        self._driver.former, self._driver.child, self._due = [], None, None  # so that none is started again

    def _watch(self) -> None:
        """Be told when the proxy that runs now ends."""
        child = self._driver.child
        if child is not None and child.returncode is None and child.pid not in self._watched.values():
            fd = os.pidfd_open(child.pid)
            self._watched[fd] = child.pid
            self._selector.register(fd, selectors.EVENT_READ)

    def _ended(self, fd: int) -> None:
        pid = self._watched.pop(fd)
        self._selector.unregister(fd)
        os.close(fd)
        child = self._driver.child
        for one in self._driver.former:
            one.poll()
        self._driver.former = [one for one in self._driver.former if one.returncode is None]
        if child is None or child.pid != pid:
            return
        child.wait()
        with contextlib.suppress(ProcessLookupError):  # nginx' workers outlive a master that was killed, and keep its ports
            os.killpg(child.pid, signal.SIGKILL)
        print(
            f"the {self._driver.program} of an Ingress controller ended with {child.returncode}; it is started again", flush=True
        )
        self._due = time.monotonic() + self._keeping.ended()

    def _start_again(self) -> None:
        """Unless the holder had it started meanwhile."""
        self._due = None
        child = self._driver.child
        if child is not None and child.poll() is None:
            return
        self._keeping.started()
        try:
            self._driver.start()
        except KernelError as error:
            print(error, flush=True)
            self._due = time.monotonic() + self._keeping.ended()


def serve(sock: socket.socket, netns: str, directory: str, proxy: ProxyName, executable: str, ipv6: bool) -> None:
    """Be the agent, until the holder has gone."""
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    ns.setns(fd, ns.CLONE_NEWNET)  # for good: this process and the proxy live in the pod's network
    os.close(fd)
    Path(directory).mkdir(parents=True, exist_ok=True)
    os.chdir(directory)
    Server(sock, _DRIVERS[proxy](directory, executable, ipv6)).run()
