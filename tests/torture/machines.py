"""Machines that netlab must know for what they are: played by namespaces of the suite's own, files bound over the kernel's.

Nothing here can play a real Windows, AppArmor or another kernel: what those say is put where netlab reads it, and the refusal
itself is a real one of this kernel (a user namespace is refused to whoever has no id mapped).
"""

import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.torture.world import KUBIA, ROOT, World

ENOUGH = "4/4"
SETTING_BACK = """
import os, time
_real = time.time
def _shifted():
    try:
        with open(os.environ["NETLAB_TORTURE_CLOCK"]) as file:
            return _real() + float(file.read() or 0)
    except (OSError, ValueError):
        return _real()
time.time = _shifted
"""


def clock_set_back(world: World, times: int) -> str:
    """the clock set back by an hour, or on by a day, while a dead node's pods wait for their time to be replaced"""
    with tempfile.TemporaryDirectory() as place:
        clock = Path(place, "clock")
        Path(place, "sitecustomize.py").write_text(SETTING_BACK)
        search = f"{place}:{world.environment.get('PYTHONPATH', ROOT)}"
        shifted = {"PYTHONPATH": search, "NETLAB_TORTURE_CLOCK": str(clock)}
        world = replace(world, environment={**world.environment, **shifted})
        for number in range(times):
            clock.write_text("0")
            up = world.run("up", "-f", str(ROOT / "manifests/rolling.yaml"), "--name", "clock")
            assert up.returncode == 0, up.stderr
            killed = world.run("fault", "kill-node", "node-171", "--lab", "clock")
            assert killed.returncode == 0, killed.stderr
            clock.write_text(("-3600", "86400")[number % 2])
            deadline = time.monotonic() + 60
            for missing in (True, False):  # first the dead node's pods are missed, then there are others
                while missing is (ENOUGH in (seen := world.run("get", "deploy", "web", "--lab", "clock").stdout)):
                    assert time.monotonic() < deadline, f"the pods of the dead node are not replaced: {seen}"
            seen = world.run("probe", "--lab", "clock", "host/client", "svc/web", "--count", "20").stdout
            assert "PASS" in seen, seen
            assert world.run("down", "clock").returncode == 0
    return "Python's clock, which is the only one that netlab reads"


UNMAPPED = "unshare -U sh -c"
"""Nobody: whoever has no id mapped may make no user namespace (EPERM), as where a switch forbids it."""
NO_USER_NAMESPACES = {
    "AppArmor, as on Ubuntu 24.04": (
        "apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    "Debian's switch": ("unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
}


def no_user_namespaces(world: World, times: int) -> str:
    """user namespaces refused by AppArmor's or Debian's switch, or for another reason: doctor and up know the remedy"""
    for _ in range(times):
        for about, (switch, value, said) in NO_USER_NAMESPACES.items():
            first = f"d={world.runtime}/{switch}; mkdir -p $d; echo {value} > $d/{switch}; mount --bind $d /proc/sys/kernel;"
            _refused(world, first, UNMAPPED, said, about)
        _refused(world, "", UNMAPPED, "user namespaces are not allowed here", "no switch")
    return f"{len(NO_USER_NAMESPACES)} switches"


def _refused(world: World, first: str, way: str, said: str, about: str) -> None:
    """Both say it, and end with 3."""
    for verb in ("doctor", f"up -f {KUBIA} --name no"):
        done = world.shell(f"{first} {way} '{sys.executable} -m netlab {verb}'")
        assert done.returncode == 3, (about, verb, done)
        assert said in done.stdout + done.stderr, (about, verb, done)


def windows(world: World, times: int) -> str:
    """WSL 1 is refused in words, WSL 2 is used (as /proc/version says it)"""
    for _ in range(times):
        bind = "f=$(mktemp); echo '{}' > $f; mount --bind $f /proc/version; rm $f;"
        first = bind.format("Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)")
        done = world.shell(f"{first} $N doctor")
        assert done.returncode == 3 and "wsl --set-version" in done.stdout, done
        _refused(world, first, UNMAPPED, "wsl --set-version", "WSL 1")
        second = bind.format("Linux version 5.15.90.1-microsoft-standard-WSL2 (oe-user@oe-host)")
        done = world.shell(f"{second} $N doctor | grep 'WSL 2' && $N up -f {KUBIA} --name wsl && $N down wsl")
        assert done.returncode == 0, done
    return ""


def old_kernel(world: World, times: int) -> str:
    """a kernel that says it is 2.6: doctor tells, up tries"""
    for _ in range(times):
        old = f"setarch --uname-2.6 {sys.executable} -m netlab"
        done = world.shell(f"{old} doctor; {old} up -f {KUBIA} --name old && {old} down old")
        assert done.returncode == 0 and "older than 6.1" in done.stdout, done
    return "its name only: the kernel is this one"


def missing_programs(world: World, times: int) -> str:
    """no nft and no iptables on the machine: doctor names the packages, up refuses what needs them"""
    cover = "f=$(mktemp); for p in {}; do p=$(readlink -f $(command -v $p)) && mount --bind $f $p; done; rm $f;"
    for _ in range(times):
        first = cover.format("iptables-nft iptables-legacy")
        done = world.shell(f"{first} $N doctor")
        assert done.returncode == 3 and "apt install iptables" in done.stdout, done
        done = world.shell(f"{first} $N up -f {KUBIA} --name none --proxy iptables")
        assert done.returncode == 3 and "apt install iptables" in done.stderr, done
        done = world.shell(f"{cover.format('nft')} $N doctor; $N up -f {KUBIA} --name nft --proxy iptables && $N down nft")
        assert done.returncode == 0 and "apt install nftables" in done.stdout, done
    return ""


CONTAINER = """
set -e
R=$(mktemp -d); mount -t tmpfs none $R; cd $R
mkdir usr etc proc dev tmp run old root
for l in bin sbin lib lib64; do ln -s usr/$l $l; done
for d in {binds}; do mkdir -p $R/$d; mount --rbind /$d $R/$d; done
mount -t proc proc proc
mount --bind proc/sys proc/sys; mount -o remount,ro,bind proc/sys
touch .dockerenv
pivot_root . old; umount -l old; cd {root}
PATH=/usr/sbin:/usr/bin
{then}
"""


def container(world: World, times: int) -> str:
    """in a container: its own root, pids and network, /proc/sys read-only, with CAP_SYS_ADMIN; and without, refused in words"""
    homes = {str(Path(path).resolve()).strip("/") for path in (sys.prefix, sys.base_prefix, str(ROOT), str(world.runtime))}
    binds = " ".join(["usr", "etc", "dev", *sorted(homes)])
    probe = "$N probe --lab cont pod/client svc/kubia --count 10"
    use = f"$N doctor | grep docker; $N up -f {KUBIA} --name cont; {probe}; $N down cont"
    for _ in range(times):
        for then, code, said in ((use, 0, "PASS"), (f"{NO_ADMIN} $N up -f {KUBIA} --name poor", 3, "CAP_SYS_ADMIN")):
            script = CONTAINER.format(binds=binds, root=ROOT, then=f"N='{sys.executable} -m netlab'\\n{then}")
            file = world.runtime / "container.sh"
            file.write_text(script.replace("\\n", "\n"))
            done = world.shell(f"unshare -p -f sh {file}")
            file.unlink()
            assert done.returncode == code, done
            assert said in done.stdout + done.stderr, done
    return ""


NO_ADMIN = "setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin"
