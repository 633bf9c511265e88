"""What the kernel lets this user do, found out by doing it: run as `python -m netlab.kernel.features`, one JSON object a line.

Everything is tried in namespaces that this process makes for itself, so that nothing on the machine is touched and everything
is gone when it ends. A line is one Check of tools.py.
"""

import errno
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

from netlab.errors import MachineError, NetlabError
from netlab.kernel import ipvs, sysctls
from netlab.kernel import namespaces as ns
from netlab.kernel import netlink as nl
from netlab.kernel.libnftables import Nftables, available
from netlab.kernel.qdisc import REMEDY
from netlab.kernel.tools import NEEDED_BY, path_of
from netlab.model import Protocol
from netlab.ops import VirtualServer

_NFT = """table ip netlab-doctor {
  map nodeports {
    type inet_proto . inet_service : verdict
  }
  set affinity {
    type ipv4_addr
    flags dynamic,timeout
    timeout 10s
  }
  chain nat {
    type nat hook prerouting priority dstnat; policy accept;
    meta l4proto . th dport vmap @nodeports
    fib daddr type local meta l4proto tcp dnat to 10.0.0.1:80
    meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 80 }
  }
  chain srcnat {
    type nat hook postrouting priority srcnat; policy accept;
    update @affinity { ip saddr }
    ct status dnat masquerade fully-random
  }
  chain filter {
    type filter hook forward priority filter; policy accept;
    ct state invalid drop
    reject
  }
}
"""
_IPTABLES = """*filter
-A FORWARD -m conntrack --ctstate INVALID -m comment --comment "try this" -j REJECT --reject-with icmp-port-unreachable
COMMIT
*nat
-A PREROUTING -m addrtype --dst-type LOCAL -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:80
-A PREROUTING -m statistic --mode random --probability 0.5 -j MARK --set-xmark 0x4000/0x4000
-A PREROUTING -m recent --name X --rcheck --seconds 10 --reap -j RETURN
-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully
COMMIT
"""
_MATCH_SET = """*filter
-A OUTPUT -m set --match-set TRY dst,dst -j RETURN
-A OUTPUT -m ipvs --vaddr 198.51.100.1 --vproto 6 --vport 80 -j DROP
COMMIT
"""
_REDIRECT = "*nat\n-A PREROUTING -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 61000\nCOMMIT\n"


def main(scheduler: str = "") -> None:
    """Try everything, most basic first; end early where nothing more can be tried. With a scheduler: only what ipvs needs."""
    error = _enter()
    if error:
        kind = "namespaces" if os.geteuid() == 0 else "user namespaces"
        return _say(kind, False, True, remedy=error)
    if scheduler:
        for name, _, found, remedy, probe in _PROBES:
            if name in NEEDED_BY["ipvs"]:
                error = _tried(probe if probe is not _ip_vs else lambda: _ip_vs(scheduler))
                _say(name, not error, True, "" if error else found, f"{remedy} ({error})" if error else remedy)
        return None
    _say("namespaces", True, True, "user, network, mount, pid, uts and ipc namespaces can be made")
    with nl.Socket() as sock:
        sock.run([nl.set_link(1, up=True)])
        for kind, needed, use in _LINKS:
            _say(f"link {kind}", _has_link(sock, kind), needed, use, f"as root: modprobe {kind} ({use})")
        for kind, use in _QDISCS:
            remedy = f"{REMEDY.format(kind=kind)} ({use})"
            _say(f"qdisc {kind}", _has_qdisc(sock, kind), False, use, remedy)
    for name, needed, found, remedy, probe in _PROBES:
        error = _tried(probe)
        _say(name, not error, needed, "" if error else found, f"{remedy} ({error})" if error else remedy)
    return None


def _say(name: str, ok: bool, needed: bool, found: str = "", remedy: str = "") -> None:
    row = {"name": name, "ok": ok, "needed": needed, "found": found if ok else "", "remedy": remedy}
    print(json.dumps(row), flush=True)


def _enter() -> str:
    """'' inside namespaces of our own, otherwise what is in the way."""
    uid, gid, flags = os.getuid(), os.getgid(), ns.CLONE_NEWUSER
    try:
        if uid != 0:
            ns.unshare(flags)
            ns.map_to_root(uid, gid)
        flags = ns.CLONE_NEWPID
        _try_pid_namespace()
        for flags in (ns.CLONE_NEWNS, ns.CLONE_NEWUTS, ns.CLONE_NEWIPC, ns.CLONE_NEWNET):
            ns.unshare(flags)
    except OSError as error:
        # AppArmor lets the user namespace be made, and then takes every capability away inside.
        return str(ns.refused(error.errno, ns.CLONE_NEWUSER if uid != 0 and error.errno == errno.EPERM else flags))
    return ""


def _try_pid_namespace() -> None:
    """Raises OSError where none can be made. In a child: a process that has made one can have no other children but its init."""
    pid = os.fork()
    if not pid:
        try:
            ns.unshare(ns.CLONE_NEWPID)
            os._exit(0)
        except OSError as error:
            os._exit(error.errno or errno.EINVAL)
    _, status = os.waitpid(pid, 0)
    if number := os.waitstatus_to_exitcode(status):
        raise OSError(abs(number), os.strerror(abs(number)))


_LINKS = (
    ("veth", True, "wires of pods and nodes"),
    ("bridge", True, "switches"),
    ("vxlan", False, "`routing: vxlan`"),
    ("dummy", False, "the ipvs mode"),
)
_QDISCS = (("netem", "delay, loss, duplicates, reordering of links"), ("tbf", "rates of links"))


def _has_link(sock: nl.Socket, kind: str) -> bool:
    refused = sock.run([nl.new_link(f"try-{kind}"[:15], kind)])
    return not refused or refused[0].errno not in (errno.EOPNOTSUPP, errno.ENODEV)


def _has_qdisc(sock: nl.Socket, kind: str) -> bool:
    """Asked for without its options: a kernel that knows it has something to say about them, another has never heard of it."""
    rtm_newqdisc, root, handle = 36, 0xFFFFFFFF, 0x10000
    body = struct.pack("=BxxxiIII", 0, 1, handle, root, 0) + nl.attr_text(1, kind)
    refused = sock.run([nl.Message(rtm_newqdisc, nl.NLM_F_CREATE | nl.NLM_F_REPLACE, body)])
    return not refused or refused[0].errno != errno.ENOENT


def _tried(probe: Callable[[], str]) -> str:
    try:
        return probe()
    except (OSError, MachineError) as error:
        return str(error)


def _conntrack() -> str:
    with nl.Socket(nl.NETLINK_NETFILTER) as sock:
        sock.dump(nl.Message((1 << 8) | 1, 0, b"\0\0\0\0"))
    return ""


def _ipset() -> str:
    with nl.Socket(nl.NETLINK_NETFILTER) as sock:
        refused = sock.run([nl.Message((6 << 8) | 1, 0, b"\0\0\0\0" + nl.attr(1, b"\6"))])
    return refused[0].text if refused else ""


def _ip_vs(scheduler: str = "rr") -> str:
    """A virtual server can be made, with this scheduler, and told to work together with conntrack."""
    server = VirtualServer("", IPv4Address("198.51.100.0"), Protocol.TCP, 20000, scheduler)
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with ipvs.Table(fd) as table:
            table.make([server])
            table.delete([ipvs.service_of(server)])
    except (OSError, NetlabError) as error:
        own_root = os.geteuid() == 0 and "not permitted" in str(error)
        return f"{' '.join(str(error).split())}{': this kernel lets only the root of the machine do it' if own_root else ''}"
    finally:
        os.close(fd)
    if sysctls.read("net/ipv4/vs/conntrack") is None:
        return "net.ipv4.vs.conntrack is not there for ordinary users on this kernel: run as root"
    return ""


def _set_match() -> str:
    """A rule can ask a set, and for a virtual server."""
    program = path_of("ipset")
    if program is None:
        return "ipset is missing: apt install ipset"
    done = subprocess.run([program, "create", "TRY", "hash:ip,port"], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        return " ".join(done.stderr.split())[:200]
    return _iptables("nft", _MATCH_SET)()


def _nftables() -> str:
    if not available():
        return "libnftables.so.1 is missing" if path_of("nft") is None else ""
    context = Nftables()
    try:
        return " ".join(context.run(_NFT)[0].split())[:200]
    finally:
        context.close()


def _iptables(backend: str, text: str = _IPTABLES) -> Callable[[], str]:
    def probe() -> str:
        path = path_of(f"iptables-{backend}-restore")
        if path is None:
            return f"iptables-{backend}-restore is missing"
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "XTABLES_LOCKFILE": "/dev/null"}
        done = subprocess.run([path], input=text, capture_output=True, text=True, env=environment, timeout=20, check=False)
        return " ".join(done.stderr.split())[:200] or "it failed without a word" if done.returncode else ""

    return probe


def _packets() -> str:
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close()
    return ""


def has_sctp() -> bool:
    """Whether this kernel has SCTP sockets."""
    try:
        _sctp()
    except OSError:
        return False
    return True


def _sctp() -> str:
    socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).close()
    return ""


def _ipv6() -> str:
    return "" if Path("/proc/sys/net/ipv6").is_dir() else "IPv6 is off (ipv6.disable=1)"


def _br_netfilter() -> str:
    return "" if Path("/proc/sys/net/bridge").is_dir() else "not loaded, and not needed"


_RULES_LOAD = "kube-proxy's matches and targets load"
_FULL_KERNEL = "small kernels leave it out: apt install linux-image-amd64, on Ubuntu linux-modules-extra-$(uname -r)"
_Probe = tuple[str, bool, str, str, Callable[[], str]]
_PROBES: tuple[_Probe, ...] = (
    ("nftables", True, "maps, sets, NAT and random choice load", "apt install nftables; modprobe nf_tables", _nftables),
    ("iptables (nft)", True, _RULES_LOAD, "apt install iptables; modprobe nft_compat", _iptables("nft")),
    ("iptables (legacy)", False, _RULES_LOAD, "as root: modprobe iptable_nat iptable_filter", _iptables("legacy")),
    ("REDIRECT", False, "the userspace mode can run", "as root: modprobe xt_REDIRECT", _iptables("nft", _REDIRECT)),
    ("connection tracking", True, "ctnetlink answers", "as root: modprobe nf_conntrack_netlink", _conntrack),
    ("packet sockets", True, "probes can see packets", "as root: modprobe af_packet", _packets),
    ("IPv6", False, "can be used in labs", "boot without ipv6.disable=1", _ipv6),
    ("SCTP", False, "SCTP sockets work", f"as root: modprobe sctp; {_FULL_KERNEL}", _sctp),
    ("ipset (kernel)", False, "the kernel side of ipset answers", "as root: modprobe ip_set", _ipset),
    ("IPVS", False, "virtual servers can be made", "as root: modprobe ip_vs, where the kernel has it", _ip_vs),
    ("rules that ask sets", False, "-m set and -m ipvs load", "as root: modprobe xt_set xt_ipvs", _set_match),
    ("br_netfilter", False, "loaded; labs switch it off for their bridges", "as root: modprobe br_netfilter", _br_netfilter),
)  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:2])
