"""What is done to labs. Each torture takes a World and how often, and raises where something was lost; its docstring is its row.

`SMALL` and `FULL`: how often in CI, and with `make torture`. Over 400 lines is not the aim: a torture is a few lines.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.live import caller
from tests.torture import groups, machines
from tests.torture.world import KUBIA, LISTENING, ROOT, World, has_traceback

Torture = Callable[[World, int], str]
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV)


@dataclass(frozen=True, slots=True)
class Row:
    """`small`, `full`: how often. `root`: only root can play this host."""

    run: Torture
    small: int
    full: int
    root: bool = False

    @property
    def name(self) -> str:
        return self.run.__name__

    @property
    def about(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0]


def _up(world: World, name: str, *more: str) -> None:
    done = world.run("up", "-f", KUBIA, "--name", name, *more)
    assert done.returncode == 0, done.stderr


def _no_traceback(process: "subprocess.Popen[str]") -> None:
    _, errors = process.communicate(timeout=300)
    assert not has_traceback(errors), errors


# ---------------------------------------------------------------- kills


def kill_the_holder_while_it_starts(world: World, times: int) -> str:
    """the holder, -9 -15 -2 -11, at a random moment of `up`"""
    chance, killed = random.Random(1), 0
    for number in range(times):
        process = world.start("up", "-f", KUBIA, "--name", f"a-{number}")
        time.sleep(chance.uniform(0.0, 0.8))  # the moment is what is random
        for pid in world.holders():
            with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, SIGNALS[number % 4])
                killed += 1
        _no_traceback(process)
        world.run("down", f"a-{number}")
    return f"{killed} of {times} were there to be killed"


def kill_the_command_that_starts_a_lab(world: World, times: int) -> str:
    """the command line, -9 -15 -2 -11, at a random moment of `up`"""
    chance, ended = random.Random(2), 0
    for number in range(times):
        process = world.start("up", "-f", KUBIA, "--name", f"b-{number}")
        time.sleep(chance.uniform(0.05, 0.8))  # the moment is what is random
        process.send_signal(SIGNALS[number % 4])
        _no_traceback(process)
        ended += process.returncode != 0
        world.run("down", f"b-{number}")
    return f"{ended} of {times} ended before the lab was up"


def kill_the_holder_under_load(world: World, times: int) -> str:
    """the holder of a lab in use, -9 -15 -2 -11"""
    for number in range(times):
        name = f"c-{number}"
        _up(world, name)
        probe = world.start("probe", "--lab", name, "pod/client", "svc/kubia", "--count", "2000")
        time.sleep(random.Random(number).uniform(0.0, 0.4))  # the moment is what is random
        for pid in world.holders():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGNALS[number % 4])
        _no_traceback(probe)
        world.run("down", name)
    return ""


def kill_agents(world: World, times: int) -> str:
    """responders, loaders, DNS servers, proxy processes, -9: the lab mends itself"""
    _up(world, "agents", "--proxy", "userspace")
    chance, killed = random.Random(3), set()
    for _ in range(times):
        (holder,) = world.holders()
        children = list(map(int, Path(f"/proc/{holder}/task/{holder}/children").read_text().split()))
        victim = chance.choice(children)
        killed.add(Path(f"/proc/{victim}/comm").read_text().strip())
        os.kill(victim, signal.SIGKILL)
        seen = world.run("probe", "--lab", "agents", "pod/client", "svc/kubia", "--count", "6", "--timeout", "3")
        assert seen.returncode in (0, 1, 4), seen.stderr  # what was in the air at that moment may be lost
    deadline = time.monotonic() + 20
    while world.run("verify", "--lab", "agents").returncode and time.monotonic() < deadline:
        time.sleep(0.2)  # until it has mended itself
    seen = world.run("probe", "--lab", "agents", "pod/client", "svc/kubia", "--count", "30")
    assert seen.returncode == 0, seen.stdout + seen.stderr
    world.run("down", "agents")
    return "kinds: " + ", ".join(sorted(killed))


TEST = """
import pytest
@pytest.mark.netlab(manifests=[{kubia!r}])
def test_forever(lab):
    print("UP", flush=True)
    import time; time.sleep(600)
"""


def kill_the_test_runner(world: World, times: int) -> str:
    """pytest with a lab, -9 -15 -2 -11"""
    file = world.runtime / "test_forever.py"
    file.write_text(TEST.format(kubia=KUBIA))
    for number in range(times):
        command = [*LISTENING, sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(file)]
        with subprocess.Popen(command, env=world.environment, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "UP" in line:
                    break
            process.send_signal(SIGNALS[number % 4])
            process.stdout.read()
    return ""


# ---------------------------------------------------------------- many


def many_at_once(world: World, times: int) -> str:
    """labs started at the same moment, probed, taken down"""
    names = [f"m-{number}" for number in range(times)]
    started = [
        world.start("up", "-f", KUBIA, "--name", name, "--proxy", ("iptables", "nftables")[n % 2]) for n, name in enumerate(names)
    ]
    for process in started:
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors
    probes = [world.start("probe", "--lab", name, "pod/client", "svc/kubia", "--count", "5", "--timeout", "20") for name in names]
    for process in probes:
        output, errors = process.communicate(timeout=600)
        assert process.returncode == 0, output + errors
    assert world.run("down", "--all", timeout_s=600).returncode == 0
    return ""


def side_by_side(world: World, times: int) -> str:
    """labs up side by side, probed in turn for a while (60 s each 5 labs): each keeps its own backends"""
    names = [f"s-{number}" for number in range(times)]
    for name in names:
        _up(world, name)
    end, rounds = time.monotonic() + times * 12, 0
    while time.monotonic() < end:
        for name in names:
            seen = world.run("probe", "--lab", name, "pod/client", "svc/kubia", "--count", "30", "--timeout", "10", "-o", "json")
            assert json.loads(seen.stdout)["verdict"] == "pass", seen.stdout
            rounds += 1
    assert world.run("down", "--all", timeout_s=600).returncode == 0
    return f"{rounds} probes"


# ---------------------------------------------------------------- a machine that refuses


def no_descriptors(world: World, times: int) -> str:
    """a hard limit of 12, 20, 30, ... file descriptors: refused in words, or it works"""
    worked = 0
    for number in range(times):
        done = world.shell(f"ulimit -n {12 + 9 * number}; $N up -f {KUBIA} --name d && $N down d")
        assert done.returncode in (0, 3), done.stderr
        assert done.returncode == 0 or "descriptor" in done.stderr or "Too many open files" in done.stderr, done.stderr
        worked += done.returncode == 0
    return f"{worked} of {times} limits were enough"


def fork_refused(world: World, times: int) -> str:
    """no more processes for this user (RLIMIT_NPROC)"""
    for number in range(times):
        done = world.shell(f"ulimit -u {number + 1} 2>/dev/null; $N up -f {KUBIA} --name f; code=$?; $N down f; exit $code")
        assert done.returncode in (0, 1, 2, 3), done.stderr
    return ""


def runtime_read_only(world: World, times: int) -> str:
    """the runtime directory is read-only"""
    for _ in range(times):
        script = f"mount -t tmpfs -o ro,mode=700 none {world.runtime} && $N up -f {KUBIA} --name ro"
        done = world.shell(script)
        assert done.returncode == 3, done
        assert "Read-only" in done.stderr, done.stderr
    return ""


def disk_full(world: World, times: int) -> str:
    """no space in the runtime directory, from 4 KiB on"""
    for number in range(times):
        size = 4 * (number + 1)
        script = (
            f"mount -t tmpfs -o size={size}k,mode=700 none {world.runtime} && "
            f"dd if=/dev/zero of={world.runtime}/full bs=1k count=4096 2>/dev/null; $N up -f {KUBIA} --name full"
        )
        done = world.shell(script)
        assert done.returncode == 3, done
        assert "No space left" in done.stderr, done.stderr
    return ""


def no_address_space(world: World, times: int) -> str:
    """a limit of address space (ulimit -v) from 20 MiB on: refused in words, or it works"""
    worked = 0
    for number in range(times):
        size = (20 + 60 * number // max(1, times - 1)) << 10
        done = world.shell(f"(ulimit -v {size}; $N up -f {KUBIA} --name mem); code=$?; $N down mem; exit $code")
        assert done.returncode in (0, 3), (size, done)
        assert done.returncode == 0 or "memory" in done.stderr, (size, done)
        worked += done.returncode == 0
    return f"{worked} of {times} limits were enough"


def stopped(world: World, times: int) -> str:
    """SIGSTOP to the holder and all its agents for so many seconds, then SIGCONT: it goes on"""
    _up(world, "stopped")
    pids = caller.marked_processes(world.mark)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(times)  # the length is what is tried
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    seen = world.run("probe", "--lab", "stopped", "pod/client", "svc/kubia", "--count", "20")
    assert seen.returncode == 0, seen.stdout + seen.stderr
    world.run("down", "stopped")
    return ""


# ---------------------------------------------------------------- a strange host, played by a namespace of our own

HOSTS = {
    "rp_filter strict": "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1",
    "rp_filter loose": "sysctl -qw net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.default.rp_filter=2",
    "no forwarding": "sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.all.forwarding=0",
    "no time stamps": "sysctl -qw net.ipv4.tcp_timestamps=0 net.ipv4.tcp_sack=0",
    "eleven local ports": "sysctl -qw net.ipv4.ip_local_port_range='60000 60010'",
    "no IPv6": "sysctl -qw net.ipv6.conf.all.disable_ipv6=1",
    "nftables that drop all": "nft 'add table inet f; add chain inet f i { type filter hook input priority 0; policy drop; }; "
    "add chain inet f o { type filter hook output priority 0; policy drop; }; "
    "add chain inet f w { type filter hook forward priority 0; policy drop; }'",
    "iptables of a firewall": "iptables -P FORWARD DROP; iptables -P INPUT DROP; "
    "iptables -t nat -A PREROUTING -p tcp --dport 80 -j REDIRECT --to-ports 1",
    "tables named kube-proxy": "nft 'add table ip kube-proxy; add chain ip kube-proxy services; add table ip6 kube-proxy'; "
    "iptables -t nat -N KUBE-SERVICES",
    "names of netlab's devices": "ip link add cni0 type bridge; ip link add eth0 type veth peer name veth0; ip netns list",
    "lo down": "ip link set lo down",
}


def strange_hosts(world: World, times: int) -> str:
    """sysctls, firewall rules, tables and devices of a host: the lab works, and the host is as it was"""
    dump = "sysctl -a 2>/dev/null | grep '^net' | grep -v -e random -e conntrack_count -e conntrack_buckets; "
    dump += "nft list ruleset; ip addr; ip route"
    for _ in range(times):
        for about, host in HOSTS.items():
            script = f"""{host}
                before=$({dump})
                $N up -f {KUBIA} --name strange || exit 9
                $N probe --lab strange pod/client svc/kubia --count 20 || exit 8
                $N probe --lab strange host/client 192.168.0.170:30123 --count 20 || exit 7
                $N down strange || exit 6
                test "$before" = "$({dump})" || exit 5"""
            done = world.shell(script)
            assert done.returncode == 0, (about, done.returncode, done.stdout, done.stderr)
    return f"{len(HOSTS)} hosts"


ENVIRONMENTS = {
    "umask 077": "umask 077;",
    "no HOME": "unset HOME;",
    "no environment": f"exec env -i PATH=/usr/bin:/bin XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR PYTHONPATH={ROOT} MARKED=1 sh -c",
    "no tty, closed descriptors": "exec 0<&- ;",
    "another directory, gone": "d=$(mktemp -d); cd $d; rmdir $d; export PYTHONPATH=" + str(ROOT) + ";",
    "read-only checkout": f"mount --bind {ROOT} {ROOT} && mount -o remount,ro,bind {ROOT} || exit 4;",
    "LANG=C": "export LC_ALL=C LANG=C PYTHONUTF8=0;",
}


def strange_environments(world: World, times: int) -> str:
    """umask, HOME, descriptors, directory, locale, a read-only checkout"""
    for _ in range(times):
        for about, first in ENVIRONMENTS.items():
            body = f"$N up -f {KUBIA} --name odd && $N probe --lab odd pod/client svc/kubia --count 5 && $N down odd"
            script = (
                f"{first} '{body.replace('$N', f'{sys.executable} -m netlab')}'" if first.endswith("sh -c") else f"{first} {body}"
            )
            done = world.shell(script)
            assert done.returncode == 0, (about, done.returncode, done.stdout, done.stderr)
    return f"{len(ENVIRONMENTS)} environments"


LONG = "a" * 19 + "-" + "b" * 20


def strange_names(world: World, times: int) -> str:
    """40-character names of labs, nodes and pods work; names in other scripts are refused in words"""
    topology, manifest = world.runtime / "long.yaml", world.runtime / "pod.yaml"
    manifest.write_text(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {LONG}, labels: {{app: x}}}}\n"
        "spec: {containers: [{name: c, image: luksa/kubia, ports: [{containerPort: 8080}]}]}\n"
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {LONG}}}\n"
        "spec: {selector: {app: x}, ports: [{port: 80, targetPort: 8080}]}\n"
    )
    for _ in range(times):
        topology.write_text(f"apiVersion: netlab/v1\nkind: Topology\nname: {LONG}\nnodes: {{{LONG}-1: {{}}, {LONG}-2: {{}}}}\n")
        done = world.run("up", str(topology), "-f", str(manifest), "--name", LONG)
        assert done.returncode == 0, done.stderr
        seen = world.run("probe", "--lab", LONG, f"node/{LONG}-1", f"svc/{LONG}", "--count", "5")
        assert seen.returncode == 0, seen.stdout + seen.stderr
        assert world.run("down", LONG).returncode == 0
        for name in ("узел", "ノード", "node with spaces", "nödé"):
            topology.write_text(f"apiVersion: netlab/v1\nkind: Topology\nnodes: {{'{name}': {{}}}}\n")
            refused = world.run("up", str(topology))
            assert refused.returncode == 2, refused
            assert "long.yaml:3" in refused.stderr, refused.stderr
    topology.unlink()
    manifest.unlink()
    return ""


ROWS = (
    Row(kill_the_holder_while_it_starts, 12, 350),
    Row(kill_the_command_that_starts_a_lab, 12, 350),
    Row(kill_the_holder_under_load, 4, 100),
    Row(kill_agents, 8, 150),
    Row(kill_the_test_runner, 4, 50),
    Row(many_at_once, 8, 100),
    Row(side_by_side, 2, 50),
    Row(no_descriptors, 4, 20),
    Row(fork_refused, 2, 20),
    Row(runtime_read_only, 1, 5),
    Row(disk_full, 2, 10),
    Row(groups.no_memory, 3, 30, root=True),
    Row(groups.memory_that_runs_out, 1, 10, root=True),
    Row(no_address_space, 3, 61),
    Row(stopped, 2, 60),
    Row(strange_hosts, 1, 3),
    Row(strange_environments, 1, 3),
    Row(strange_names, 1, 3),
    Row(machines.clock_set_back, 1, 6),
    Row(machines.no_user_namespaces, 1, 10),
    Row(machines.windows, 1, 5),
    Row(machines.old_kernel, 1, 5),
    Row(machines.missing_programs, 1, 5),
    Row(machines.container, 1, 10, root=True),
)
