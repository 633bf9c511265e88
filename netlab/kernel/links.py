"""Bridges, veth pairs and VXLAN devices: made, or set to what an op says where they are there already.

Two steps, with a flush between: `bridge` and `veth` queue the making of links, `finish` what can only be said afterwards (the
far end up, its master, other names, changes of links that were there). `revived`: namespaces in which a device comes up again.
"""

import errno
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace

from netlab.errors import KernelError
from netlab.kernel import listing
from netlab.kernel import netlink as nl
from netlab.kernel.listing import Link
from netlab.kernel.session import GONE, Session
from netlab.kernel.waiting import wait_for
from netlab.ops import Bridge, Dummy, Identity, Op, Veth, Vxlan

_OPERSTATE_UP = 6


class Links:
    """The link operations of one session. `installed` is what was there before, by identity."""

    def __init__(self, session: Session, installed: Mapping[Identity, Op]) -> None:
        self._session = session
        self._installed = installed
        self._finish: list[tuple[str, nl.Message, Op]] = []
        self._coming_up: dict[str, dict[str, None]] = defaultdict(dict)
        self.revived: set[str] = set()

    def finish(self) -> None:
        """Queue what had to wait until the links were there."""
        for netns, message, op in self._finish:
            self._session.queue(netns, message, op)

    def wait_until_up(self) -> None:
        """Return when every veth that should carry packets does.

        A work queue of the kernel deals with carriers that appear, at most some hundred a second (net/core/link_watch.c); until
        then a port does not forward. Asked about a single link, Linux 6.5 and later do it at once; others are waited for.
        """
        wait_for(self._coming_up, self._not_up, "the link does not come up")

    def _comes_up(self, netns: str, device: str, master: str) -> None:
        """A bridge has a carrier once one of its ports forwards: it is asked about after them."""
        names = self._coming_up[netns]
        names[device] = None
        if master:
            names.pop(master, None)
            names[master] = None

    def _not_up(self, netns: str, names: Iterable[str]) -> tuple[str, ...]:
        indices = self._session.table(netns).indices
        found = listing.some_links(self._session.socket(netns), (indices[name] for name in names))
        return tuple(link.name for link in found if link.operstate != _OPERSTATE_UP)

    def bridge(self, op: Bridge) -> None:
        table = self._session.table(op.netns)
        listed = table.listed.get(op.device)
        if listed is not None and listed.kind != "bridge":
            self._delete(op.netns, op.device, op)
            listed = None
        if listed is None:
            # The kernel lowers a bridge's MTU to its ports', unless it has been changed by hand: so make it wrong and change it.
            index = table.reserve(op.device)
            self._session.queue(op.netns, nl.bridge(index, op.device, op.mac, op.mtu_bytes - 1), op)
            self._session.queue(op.netns, nl.set_link(index, mtu_bytes=op.mtu_bytes), op)
        else:
            self._set(op.netns, listed, _End(op.mac, op.mtu_bytes, "", True), op)

    def dummy(self, op: Dummy) -> None:
        """A device for addresses, left down: of kind dummy or, where the kernel has none, a bridge without ports."""
        table = self._session.table(op.netns)
        listed = table.listed.get(op.device)
        if listed is not None and listed.kind not in ("dummy", "bridge"):
            self._delete(op.netns, op.device, op)
            self._session.flush()
            listed = None
        if listed is not None or op.device in table.indices:
            return
        index = table.reserve(op.device)
        self._session.flush()
        sock = self._session.socket(op.netns)
        for kind in ("dummy", "bridge"):
            refused = sock.run([nl.new_link(op.device, kind, index)])
            if not refused:
                return
            if refused[0].errno not in (errno.EOPNOTSUPP, errno.ENODEV):
                break
        raise KernelError(f"{op.netns}: the device {op.device} cannot be made: {refused[0].text}")

    def vxlan(self, op: Vxlan) -> None:
        """One that differs in more than MAC, MTU and being up is made anew: the kernel changes nothing else of it."""
        table = self._session.table(op.netns)
        listed = table.listed.get(op.device)
        was = self._installed.get(op.identity)
        same = isinstance(was, Vxlan) and replace(was, mac=op.mac, mtu_bytes=op.mtu_bytes) == op
        if listed is not None and listed.kind == "vxlan" and same:
            self._set(op.netns, listed, _End(op.mac, op.mtu_bytes, "", True), op)
            return
        if listed is not None:
            self._delete(op.netns, op.device, op)
            self.revived.add(op.netns)
            self._session.flush()
        if was is not None:
            self.revived.add(op.netns)
        index = table.reserve(op.device)
        message = nl.vxlan(index, op.device, op.mac, op.mtu_bytes, op.vni, op.local, op.port)
        self._session.queue(op.netns, message, op)

    def veth(self, op: Veth) -> None:
        session = self._session
        here, there = session.table(op.netns), session.table(op.peer_netns)
        listed, peer = here.listed.get(op.device), there.listed.get(op.peer_device)
        if listed is not None and peer is not None and _joined(listed, peer) and not self._differs(op):
            self._set(op.netns, listed, _End(op.mac, op.mtu_bytes, op.master, op.up, op.altname), op)
            self._set(op.peer_netns, peer, _End(op.peer_mac, op.mtu_bytes, op.peer_master, op.peer_up), op)
            self._forward(op)
            if op.up and op.peer_up:
                self._comes_up(op.netns, op.device, op.master)
                self._comes_up(op.peer_netns, op.peer_device, op.peer_master)
            return
        if listed is not None:
            self._delete(op.netns, op.device, op)
        if peer is not None:
            self._delete(op.peer_netns, op.peer_device, op)
        if listed is not None or peer is not None:
            self.revived |= {op.netns, op.peer_netns}
            session.flush()  # a veth's other end goes with it: names must be free before they are used again
        self._make(op)
        self._forward(op)

    def _forward(self, op: Veth) -> None:
        """What a port's bridge knows of its other end. It ends with the port, and when that leaves the bridge."""
        ends = ((op.netns, op.device, op.master, op.peer_mac), (op.peer_netns, op.peer_device, op.peer_master, op.mac))
        for netns, port, master, mac in ends:
            if master and mac:
                index = self._session.table(netns).indices[port]
                self._finish.append((netns, nl.set_port_forwarding(index, mac), op))

    def _differs(self, op: Veth) -> bool:
        """The pair was installed as something else than this op, not counting up and down: it is made anew."""
        was = self._installed.get(op.identity)
        return isinstance(was, Veth) and replace(was, up=op.up, peer_up=op.peer_up) != op

    def _make(self, op: Veth) -> None:
        """The message is sent from the end that has a master, which the same message can set."""
        if op.peer_master and not op.master:
            far, near = (op.netns, op.device, op.mac, op.up), (op.peer_netns, op.peer_device, op.peer_mac, op.peer_up)
        else:
            near, far = (op.netns, op.device, op.mac, op.up), (op.peer_netns, op.peer_device, op.peer_mac, op.peer_up)
        session = self._session
        table, far_table = session.table(near[0]), session.table(far[0])
        # Two ends of equal index look to link_watch.c like a device without a peer: it notices their carrier up to 1 s late.
        far_table.next_index += far_table.next_index == table.next_index
        end = nl.End(table.reserve(near[1]), *near[1:])
        peer = nl.End(far_table.reserve(far[1]), *far[1:])
        master = table.indices.get(op.master or op.peer_master, 0)
        if end.up and peer.up:
            self._comes_up(near[0], end.name, op.master or op.peer_master)  # the far end is set up last, and so at once
        session.queue(near[0], nl.veth(end, peer, session.fds[far[0]], op.mtu_bytes, master), op)
        both = op.master and op.peer_master
        far_master = far_table.indices.get(op.peer_master, 0) if both else None
        if peer.up or both:
            self._finish.append((far[0], nl.set_link(peer.ifindex, up=peer.up or None, master=far_master), op))
        if op.altname:
            index = session.table(op.netns).indices[op.device]
            self._finish.append((op.netns, nl.add_altname(index, op.altname), op))

    def _set(self, netns: str, link: Link, end: "_End", op: Op) -> None:
        master = self._session.table(netns).indices.get(end.master, 0) if end.master else 0
        mac = end.mac if end.mac and end.mac.lower() != link.mac else ""
        mtu = end.mtu_bytes if end.mtu_bytes != link.mtu_bytes else 0
        up = end.up if end.up != link.up else None
        if mac or mtu or up is not None or master != link.master:
            change = nl.set_link(link.ifindex, up=up, mac=mac, mtu_bytes=mtu, master=master if master != link.master else None)
            self._finish.append((netns, change, op))
        if up:
            self.revived.add(netns)
        if end.altname and end.altname not in link.altnames:
            self._finish.append((netns, nl.add_altname(link.ifindex, end.altname), op))

    def _delete(self, netns: str, device: str, op: Op) -> None:
        table = self._session.table(netns)
        self._session.queue(netns, nl.del_link(table.indices[device]), op, GONE)
        table.forget(device)


class _End:
    __slots__ = ("altname", "mac", "master", "mtu_bytes", "up")

    def __init__(self, mac: str, mtu_bytes: int, master: str, up: bool, altname: str = "") -> None:
        self.mac, self.mtu_bytes, self.master, self.up, self.altname = mac, mtu_bytes, master, up, altname


def _joined(link: Link, peer: Link) -> bool:
    """Each says that the other is its other end (indices only: the namespaces' ids are not compared)."""
    return link.kind == "veth" == peer.kind and link.link == peer.ifindex and peer.link == link.ifindex
