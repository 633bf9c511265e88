"""The peers: a C program that packs netlink itself (the floor), `ip -batch`, one `ip` a command, pyroute2, Mininet; netlab's own
creation path. Each in a fresh network, mount and pid namespace.

A peer is this module run again by `unshare` (`python -m netlab.cli.bench.peers WHAT`), with its input on standard input; it
prints what it measured. What it leaves behind goes with its namespaces.
"""

import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlab.cli.bench import spent
from netlab.cli.bench.rows import timed
from netlab.cli.bench.wire_texts import batches, floor_lines, wires
from netlab.ops import Bridge, DeviceAddress, Neighbour, Netns, Op, Route, Veth

if TYPE_CHECKING:
    from netlab.plan import Plan

MININET = """
import sys, time
import mininet.net
from mininet.node import Switch
from mininet.topo import SingleSwitchTopo

class Bridge(Switch):
    def start(self, controllers):
        self.cmd("ip link add", self.name, "type bridge")
        for interface in self.intfList():
            if interface.name != "lo":
                self.cmd("ip link set", interface.name, "master", self.name)
        self.cmd("ip link set", self.name, "up")

    def stop(self, deleteIntfs=True):
        self.cmd("ip link del", self.name)
        super().stop(deleteIntfs)

mininet.net.fixLimits = lambda: None
begun = time.perf_counter()
net = mininet.net.Mininet(topo=SingleSwitchTopo(k=int(sys.argv[1])), switch=Bridge, controller=None)
net.start()
up = time.perf_counter() - begun
begun = time.perf_counter()
net.stop()
print(up, time.perf_counter() - begun, flush=True)
"""
"""Run by the Python that Mininet is installed for. fixLimits would raise limits of the whole machine; its own LinuxBridge needs
brctl, which recent systems do not have, and takes longer."""


PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
"""An ordinary user's PATH on Debian has neither of the two."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Seconds to make it, CPU seconds of that, seconds to take it away again (where it was); empty with a note that says why."""

    seconds: tuple[float, ...] = ()
    note: str = ""
    cpu: tuple[float, ...] = ()
    down: tuple[float, ...] = ()


def unshared(command: list[str], stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a program in namespaces of its own; the machine's network, mounts and processes are out of its reach."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    wrapped = ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *command]
    return subprocess.run(wrapped, input=stdin, capture_output=True, text=True, env={**os.environ, "PATH": PATH})


def repeated(what: str, stdin: str, runs: int, arguments: Iterable[str] = ()) -> Measured:
    found: list[dict[str, float]] = []
    for _ in range(runs):
        done = unshared([sys.executable, "-m", "netlab.cli.bench.peers", what, *arguments], stdin)
        if done.returncode:
            return Measured(note=f"not measured: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    columns = ([one[name] for one in found if name in one] for name in ("seconds", "cpu", "down"))
    seconds, cpu, down = map(tuple, columns)
    return Measured(seconds, "", cpu, down)


def missing(program: str, package: str) -> Measured | None:
    """What a peer says whose program is not there."""
    return None if shutil.which(program, path=PATH) else Measured(note=f"not installed (apt-get install {package})")


def floor(plan: "Plan", runs: int) -> Measured:
    """The C program, compiled now."""
    with compiled() as program:
        if program is None:
            return Measured(note="no C compiler (apt-get install gcc libc6-dev)")
        return repeated("floor", floor_lines(plan.ops.values()), runs, [str(program)])


@contextmanager
def compiled() -> Iterator[Path | None]:
    """floor.c as a program, for as long as the `with` lasts; None where there is no compiler."""
    compiler = shutil.which("cc", path=PATH)
    with tempfile.TemporaryDirectory(prefix="netlab-bench-") as directory:
        program = Path(directory) / "floor"
        source = Path(__file__).with_name("floor.c")
        command = [compiler or "cc", "-O2", "-o", str(program), str(source)]
        if compiler is None or subprocess.run(command, capture_output=True).returncode:
            yield None
        else:
            Path(directory).chmod(0o755)
            yield program


def ip_batch(plan: "Plan", runs: int) -> Measured:
    """iproute2 making what the plan says of namespaces, links, addresses, routes and neighbours."""
    return missing("ip", "iproute2") or repeated("ip-batch", json.dumps(batches(plan.ops.values())), runs)


def ip_commands(plan: "Plan", runs: int) -> Measured:
    """The same, one program started for each line."""
    return missing("ip", "iproute2") or repeated("ip", json.dumps(batches(plan.ops.values())), runs)


def wiring(plan: "Plan", runs: int) -> Measured:
    """netlab's own creation path for the same operations."""
    return repeated("wiring", pickle.dumps(wires(plan.ops.values())).hex(), runs)


def pyroute2(plan: "Plan", runs: int) -> Measured:
    """pyroute2 as its documentation shows it: an object a namespace, a call an object."""
    return repeated("pyroute2", pickle.dumps(wires(plan.ops.values())).hex(), runs)


def mininet(hosts: int, runs: int) -> Measured:
    """Mininet with a Linux bridge and so many hosts on it."""
    return missing("mn", "mininet") or repeated("mininet", "", runs, [str(hosts)])


# ---------------------------------------------------------------- inside the namespaces


def say(seconds: float, cpu: float | None = None, down: float | None = None) -> None:
    values = {"seconds": seconds, "cpu": cpu, "down": down}
    print(json.dumps({name: value for name, value in values.items() if value is not None}))


def say_made(make: Callable[[], object], take_away: Callable[[], object] | None = None) -> None:
    """Time the making, with the CPU time of this process and of those that it started, and the taking away."""
    before = spent.children()
    seconds = timed(make)
    cpu = spent.children() - before
    say(seconds, cpu, timed(take_away) if take_away is not None else None)


def inside_floor() -> None:
    done = subprocess.run([sys.argv[2]], input=sys.stdin.read(), capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip() or "failed")
    seconds, cpu = map(float, done.stdout.split())
    say(seconds, cpu)


def inside_ip_batch() -> None:
    given: dict[str, list[str]] = json.load(sys.stdin)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)

    def batch(name: str, lines: Sequence[str]) -> None:
        inside = ["-n", name] if name else []
        text = "\n".join(lines)
        subprocess.run(["ip", *inside, "-batch", "-"], input=text, text=True, check=True, stdout=subprocess.DEVNULL)

    def wire() -> None:
        for name, lines in given.items():
            batch(name, lines)

    say_made(wire, lambda: batch("", [f"netns del {name}" for name in given if name]))


def inside_ip() -> None:
    given: dict[str, list[str]] = json.load(sys.stdin)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)

    def wire() -> None:
        for name, lines in given.items():
            inside = ["-n", name] if name else []
            for line in lines:
                subprocess.run(["ip", *inside, *line.split()], check=True, stdout=subprocess.DEVNULL)

    def unwire() -> None:
        for name in filter(None, given):
            subprocess.run(["ip", "netns", "del", name], check=True)

    say_made(wire, unwire)


def inside_wiring() -> None:
    from netlab.kernel.apply import Kernel
    from netlab.kernel.namespaces import raise_descriptor_limit

    raise_descriptor_limit()
    ops = pickle.loads(bytes.fromhex(sys.stdin.read()))
    kernel = Kernel()
    gc.disable()  # as the holder does while it builds a lab
    say_made(lambda: kernel.apply((), ops), kernel.close)


def inside_pyroute2() -> None:
    from pyroute2 import NetNS, netns

    from netlab.kernel.namespaces import raise_descriptor_limit

    raise_descriptor_limit()
    ops: tuple[Op, ...] = pickle.loads(bytes.fromhex(sys.stdin.read()))
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    names: dict[str, str] = {}
    spaces: dict[str, Any] = {}

    def wire() -> None:
        for op in ops:
            if isinstance(op, Netns):
                names[op.name] = f"n{len(names)}"
                netns.create(names[op.name])
                spaces[op.name] = space = NetNS(names[op.name])
                space.link("set", index=1, state="up")
            else:
                _pyroute2_op(spaces, names, op)

    def unwire() -> None:
        for name, space in spaces.items():
            space.close()
            netns.remove(names[name])

    say_made(wire, unwire)


def _pyroute2_op(spaces: Mapping[str, Any], names: Mapping[str, str], op: Op) -> None:
    def index(name: str, device: str) -> int:
        return int(spaces[name].link_lookup(ifname=device)[0])

    match op:
        case Bridge(name, device, mac):
            spaces[name].link("add", ifname=device, kind="bridge", address=mac, state="up")
        case Veth():
            peer = {"ifname": op.peer_device, "address": op.peer_mac, "net_ns_fd": names[op.peer_netns]}
            spaces[op.netns].link("add", ifname=op.device, kind="veth", address=op.mac, peer=peer)
            for name, device, master in ((op.netns, op.device, op.master), (op.peer_netns, op.peer_device, op.peer_master)):
                joined: dict[str, Any] = {"master": index(name, master)} if master else {}
                spaces[name].link("set", index=index(name, device), state="up", **joined)
        case DeviceAddress(name, device, address, length, prefix_route):
            flags: dict[str, Any] = {} if prefix_route else {"flags": 0x200}
            spaces[name].addr("add", index=index(name, device), address=str(address), prefixlen=length, **flags)
        case Route():
            if op.type == "blackhole":
                spaces[op.netns].route("add", dst=str(op.destination), type="blackhole")
                return
            more: dict[str, Any] = {"gateway": str(op.gateway)} if op.gateway else {"scope": "link"}
            more |= {"prefsrc": str(op.source)} if op.source else {}
            spaces[op.netns].route("add", dst=str(op.destination), oif=index(op.netns, op.device), **more)
        case Neighbour(name, device, address, mac):
            spaces[name].neigh("add", dst=str(address), lladdr=mac, ifindex=index(name, device), state="permanent")
        case _:
            raise AssertionError(f"not wiring: {op}")


def inside_mininet() -> None:
    for path in ("/proc/sys/kernel", "/proc/sys/fs"):  # Mininet raises limits of the whole machine
        subprocess.run(["mount", "--bind", path, path], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    python = "/usr/bin/python3"
    before = spent.children()
    done = subprocess.run([python, "-c", MININET, *sys.argv[2:]], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().removeprefix("Traceback (most recent call last):").strip() or "mininet failed")
    up, down = map(float, done.stdout.split()[-2:])
    say(up, spent.children() - before, down)


INSIDE: Mapping[str, Callable[[], None]] = {
    "floor": inside_floor,
    "ip-batch": inside_ip_batch,
    "ip": inside_ip,
    "wiring": inside_wiring,
    "pyroute2": inside_pyroute2,
    "mininet": inside_mininet,
}

if __name__ == "__main__":
    INSIDE[sys.argv[1]]()
    sys.stdout.flush()
    os._exit(0)  # what is left goes with the namespaces
