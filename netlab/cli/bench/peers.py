"""The peers: `ip -batch`, netlab's own creation path alone, Mininet; each in a fresh network, mount and pid namespace.

A peer is this module run again by `unshare` (`python -m netlab.cli.bench.peers WHAT`), with its input on standard input; it
prints the seconds that it took. What it leaves behind goes with its namespaces.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netlab.cli.bench.rows import timed
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
print(time.perf_counter() - begun, flush=True)
net.stop()
"""
"""Run by the Python that Mininet is installed for. fixLimits would raise limits of the whole machine; its own LinuxBridge needs
brctl, which recent systems do not have, and takes longer."""


@dataclass(frozen=True, slots=True)
class Measured:
    seconds: tuple[float, ...] = ()
    note: str = ""


def unshared(command: list[str], stdin: str = "") -> "subprocess.CompletedProcess[str]":
    """Run a program in namespaces of its own; the machine's network, mounts and processes are out of its reach."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    wrapped = ["unshare", *user, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *command]
    search = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"  # an ordinary user's PATH on Debian has neither
    return subprocess.run(wrapped, input=stdin, capture_output=True, text=True, env={**os.environ, "PATH": search})


def repeated(what: str, stdin: str, runs: int, arguments: Iterable[str] = ()) -> Measured:
    seconds = []
    for _ in range(runs):
        done = unshared([sys.executable, "-m", "netlab.cli.bench.peers", what, *arguments], stdin)
        if done.returncode:
            return Measured(note=f"not measured: {(done.stderr.strip().splitlines() or ['failed'])[0]}")
        seconds.append(float(done.stdout.split()[0]))
    return Measured(tuple(seconds))


def ip_batch(plan: "Plan", runs: int) -> Measured:
    """iproute2 making what the plan says of namespaces, links, addresses, routes and neighbours."""
    if shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
        return Measured(note="iproute2 is not installed")
    return repeated("ip-batch", json.dumps(batches(plan.ops.values())), runs)


def wiring(plan: "Plan", runs: int) -> Measured:
    """netlab's own creation path for the same operations."""
    import pickle

    wires = tuple(op for op in plan.ops.values() if isinstance(op, Netns | Bridge | Veth | DeviceAddress | Route | Neighbour))
    return repeated("wiring", pickle.dumps(wires).hex(), runs)


def mininet(hosts: int, runs: int) -> Measured:
    if shutil.which("mn") is None:
        return Measured(note="not installed (apt-get install mininet)")
    return repeated("mininet", "", runs, [str(hosts)])


def batches(ops: Iterable[Op]) -> Mapping[str, list[str]]:
    """`ip -batch` input: "" for what is made from outside, otherwise a namespace's own lines."""
    names: dict[str, str] = {}
    text: dict[str, list[str]] = {"": []}
    up: dict[str, list[str]] = {}
    for op in ops:
        match op:
            case Netns(name):
                names[name] = f"n{len(names)}"
                text[""].append(f"netns add {names[name]}")
                text[names[name]] = ["link set lo up"]
            case Bridge(netns, device, mac):
                text[names[netns]] += [f"link add {device} address {mac} type bridge", f"link set {device} up"]
            case Veth():
                one, other = names[op.netns], names[op.peer_netns]
                ends = f"{op.device} netns {one} address {op.mac} type veth peer name {op.peer_device} netns {other}"
                text[""].append(f"link add {ends} address {op.peer_mac}")
                for name, device, master in ((one, op.device, op.master), (other, op.peer_device, op.peer_master)):
                    up.setdefault(name, []).append(f"link set {device}{' master ' + master if master else ''} up")
            case DeviceAddress(netns, device, address, length, prefix_route):
                up.setdefault(names[netns], []).append(
                    f"addr add {address}/{length} dev {device}{'' if prefix_route else ' noprefixroute'}"
                )
            case Route(netns, destination, gateway, device, source, kind, onlink):
                via = f" via {gateway}" if gateway else ""
                dev = f" dev {device}" if device else ""
                src = f" src {source}" if source else ""
                up.setdefault(names[netns], []).append(f"route add {kind} {destination}{via}{dev}{src}{' onlink' * onlink}")
            case Neighbour(netns, device, address, mac):
                up.setdefault(names[netns], []).append(f"neigh add {address} lladdr {mac} dev {device} nud permanent")
            case _:
                pass
    for name, lines in up.items():
        text[name] += lines
    return text


# ---------------------------------------------------------------- inside the namespaces


def inside_ip_batch() -> None:
    given: dict[str, list[str]] = json.load(sys.stdin)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)

    def wire() -> None:
        for name, lines in given.items():
            inside = ["-n", name] if name else []
            subprocess.run(
                ["ip", *inside, "-batch", "-"], input="\n".join(lines), text=True, check=True, stdout=subprocess.DEVNULL
            )

    print(timed(wire))


def inside_wiring() -> None:
    import pickle

    from netlab.kernel.apply import Kernel

    ops = pickle.loads(bytes.fromhex(sys.stdin.read()))
    print(timed(lambda: Kernel().apply((), ops)))


def inside_mininet() -> None:
    for path in ("/proc/sys/kernel", "/proc/sys/fs"):  # Mininet raises limits of the whole machine
        subprocess.run(["mount", "--bind", path, path], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    python = "/usr/bin/python3"
    done = subprocess.run([python, "-c", MININET, *sys.argv[2:]], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip().removeprefix("Traceback (most recent call last):").strip() or "mininet failed")
    print(done.stdout)


INSIDE: Mapping[str, Callable[[], None]] = {"ip-batch": inside_ip_batch, "wiring": inside_wiring, "mininet": inside_mininet}

if __name__ == "__main__":
    INSIDE[sys.argv[1]]()
