"""Kernel: namespaces, links, addresses, routes, neighbours and sysctls, made and changed as ops say.

Decides the order and the grouping: all new namespaces first (the process walks from one to the next and goes home once), then
links, then what lives on them, each namespace getting one message batch a phase. Remembers what it installed, because the
kernel forgets the routes and neighbours of a device that goes down. Refuses to know rules, listeners, processes and files.

An op in `added` whose identity was installed before takes its place: a veth that differs only in `up` is set, any other is made
anew. A descriptor in `fds` holds each namespace; closing it (or dying) frees everything in it.
"""

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from ipaddress import ip_interface

from netlab.errors import KernelError, MachineError
from netlab.kernel import addresses, extras, namespaces, qdisc, sysctls
from netlab.kernel import netlink as nl
from netlab.kernel.links import Links
from netlab.kernel.session import GONE, Session, raise_all
from netlab.model import Address
from netlab.ops import (
    ORDER,
    Bridge,
    DeviceAddress,
    Dummy,
    Forwarding,
    Identity,
    Neighbour,
    Netns,
    Op,
    Qdisc,
    Route,
    Sysctl,
    Veth,
    Vxlan,
)

_DOOMED_GROUP = 0x6E6C
"""Links about to be deleted are put into this group: deleting a group costs one RCU barrier (20 ms), not one for each."""
_DOWN = frozenset({errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EINVAL, errno.ENODEV})
"""What routes and addresses meet on a device that is down on purpose; they are made again when it comes up."""
_UNSHAPED = frozenset({*GONE, errno.EINVAL})
"""Answers to the removal of a qdisc that mean: there is only the kernel's own."""
_FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
_OnDevice = DeviceAddress | Route | Neighbour | Forwarding


class Kernel:
    """The namespaces of one lab. `fds`: name -> descriptor, open as long as the namespace is wanted."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}
        self._home = namespaces.current_netns()
        self._installed: dict[Identity, Op] = {}

    def close(self) -> None:
        """Let every namespace go."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds.clear()
        self._installed.clear()

    def apply(self, removed: Sequence[Op], added: Sequence[Op]) -> None:
        """Remove, then add. Raises KernelError with every op that was refused, MachineError at the machine's limits."""
        self._apply(removed, added, repairing=False)

    def _apply(self, removed: Sequence[Op], added: Sequence[Op], repairing: bool) -> None:
        unique = {op.identity: op for op in added}
        try:
            with Session(self.fds, self._home) as session:
                self._remove(session, [op for op in removed if op.identity not in unique])
                self._add(session, [*unique.values()], repairing)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise MachineError(namespaces.out_of_descriptors()) from None
            raise KernelError(f"the kernel refused: {error}") from None

    def repair(self, wanted: Sequence[Op], extra: Sequence[Identity]) -> None:
        """Make the ops again whatever the kernel holds in their place, and take away what no op asks for (by identity)."""
        with Session(self.fds, self._home) as session:
            extras.remove(session, extra)
            session.flush()
        self._apply((), _in_making_order(wanted), repairing=True)

    # ------------------------------------------------------------ add

    def _add(self, session: Session, added: Sequence[Op], repairing: bool) -> None:
        new = [op.name for op in added if isinstance(op, Netns) and op.name not in self.fds]
        settings: dict[str, list[Sysctl]] = defaultdict(list)
        later: dict[str, list[Sysctl]] = defaultdict(list)
        for op in added:
            if isinstance(op, Sysctl):
                (later if sysctls.device(op) else settings)[op.netns].append(op)
        self._add_side_effects(settings)
        failures = self._new_namespaces(session, new, settings)
        failures += self._set(settings)
        raise_all(failures)
        links = Links(session, self._installed)
        for op in added:
            if isinstance(op, Bridge):
                links.bridge(op)
        for op in added:
            if isinstance(op, Veth):
                links.veth(op)
        for op in added:
            if isinstance(op, Vxlan):
                links.vxlan(op)
        for op in added:
            if isinstance(op, Dummy):  # last: without an address of its own a device borrows the first one's
                links.dummy(op)
        session.flush()
        self._installed.update((op.identity, op) for op in added if isinstance(op, Netns | Bridge | Veth | Vxlan | Dummy))
        raise_all(self._set(later))
        in_force = self._configure(session, links, added, repairing)
        links.wait_until_up()
        self._installed.update((op.identity, op) for op in added)
        addresses.wait_until_local(session, in_force)

    def _new_namespaces(self, session: Session, names: Sequence[str], settings: dict[str, list[Sysctl]]) -> list[str]:
        """Make them, and write their sysctls while inside. The process goes home at the end, whatever happens."""
        failures: list[str] = []
        with sysctls.Entrance() as entrance:
            try:
                for name in names:
                    self.fds[name] = namespaces.unshared_netns(name)
                    session.adopt_new(name)
                    failures += sysctls.write(settings.pop(name, ()), entrance.next())
            finally:
                if names:
                    namespaces.setns(self._home)
        return failures

    def _add_side_effects(self, settings: dict[str, list[Sysctl]]) -> None:
        """Writing a forwarding switch resets other sysctls of the namespace: what was set before is set again after it."""
        for netns, ops in settings.items():
            if netns in self.fds and any(op.key in _FORWARDING for op in ops):
                given = {op.key for op in ops}
                before = (op for op in self._installed.values() if isinstance(op, Sysctl) and op.netns == netns)
                ops += (op for op in before if op.key not in given and not sysctls.device(op))

    def _set(self, settings: dict[str, list[Sysctl]]) -> list[str]:
        failures: list[str] = []
        for netns, ops in settings.items():
            with namespaces.entered(self.fds[netns], self._home):
                failures += sysctls.write(ops)
        return failures

    def _configure(self, session: Session, links: Links, added: Sequence[Op], repairing: bool) -> dict[str, list[Address]]:
        """Set links up, then addresses, routes, neighbours; with them those that the kernel forgot while a device was down.

        The IPv6 addresses that will be in force.
        """
        for op in added:
            if isinstance(op, Netns):
                session.queue(op.name, nl.set_link(1, up=True), op)
        links.finish()
        on_devices = [op for op in added if isinstance(op, _OnDevice)]
        links.revived |= {op.netns for op in on_devices if self._is_made_anew(op)}
        if links.revived:
            known = {op.identity for op in on_devices}
            forgotten = (op for op in self._installed.values() if isinstance(op, _OnDevice) and op.netns in links.revived)
            on_devices = _in_order([*(op for op in forgotten if op.identity not in known), *on_devices])
        down = {netns for op in self._installed.values() for netns in _down_in(op)} if on_devices else set()
        for op in on_devices:
            tolerated = _DOWN if op.netns in down else frozenset()
            self._on_device(session, op, tolerated)
            if repairing and isinstance(op, DeviceAddress):
                _connect(session, op, tolerated)
        for op in added:
            if isinstance(op, Qdisc):
                self._shape(session, op, repairing)
        session.flush()
        in_force: dict[str, list[Address]] = defaultdict(list)
        for op in on_devices:
            if isinstance(op, DeviceAddress) and op.address.version == 6 and op.netns not in down and not self._is_on_dummy(op):
                in_force[op.netns].append(op.address)
        return in_force

    def _is_on_dummy(self, op: DeviceAddress) -> bool:
        """A device that is left down."""
        return isinstance(self._installed.get(Dummy(op.netns, op.device).identity), Dummy)

    def _on_device(self, session: Session, op: _OnDevice, tolerated: frozenset[int]) -> None:
        index = session.index(op.netns, op.device) if op.device else 0
        if index is None:
            if tolerated:
                return
            raise KernelError(f"{op.netns} has no device {op.device}, which {op.identity} needs")
        match op:
            case DeviceAddress():
                if self._is_made_anew(op):
                    session.queue(op.netns, nl.del_address(index, op.address, op.prefixlen), op, GONE)
                session.queue(op.netns, nl.add_address(index, op.address, op.prefixlen, op.prefix_route), op, tolerated)
            case Route():
                session.queue(op.netns, nl.set_route(op.destination, _hop(op, index)), op, tolerated)
            case Neighbour():
                session.queue(op.netns, nl.set_neighbour(index, op.address, op.mac), op, tolerated)
            case Forwarding():
                session.queue(op.netns, nl.set_forwarding(index, op.mac, op.remote), op, tolerated)

    def _shape(self, session: Session, op: Qdisc, repairing: bool) -> None:
        """Where only numbers change, what is queued stays queued."""
        index = session.index(op.netns, op.device)
        if index is None:
            raise KernelError(f"{op.netns} has no device {op.device}, which {op.identity} needs")
        was = self._installed.get(op.identity)
        if repairing or not isinstance(was, Qdisc) or qdisc.kinds(was.value) != qdisc.kinds(op.value):
            session.queue(op.netns, qdisc.remove(index), op, _UNSHAPED)
        for message in qdisc.install(index, op.value):
            session.queue(op.netns, message, op)

    def _is_made_anew(self, op: _OnDevice) -> bool:
        """An address whose flags change: the kernel cannot do that, and deletes the device's routes with its last address."""
        return isinstance(op, DeviceAddress) and self._installed.get(op.identity, op) != op

    # ------------------------------------------------------------ remove

    def _remove(self, session: Session, removed: Sequence[Op]) -> None:
        if not removed:
            return
        dead = {op.name for op in removed if isinstance(op, Netns)}
        ends: set[tuple[str, str]] = set()
        for op in removed:
            match op:
                case DeviceAddress() | Route() | Neighbour() | Forwarding() if op.netns not in dead and op.netns in self.fds:
                    _delete(session, op)
                case Qdisc() if op.netns not in dead and op.netns in self.fds:
                    index = session.index(op.netns, op.device)
                    if index is not None:
                        session.queue(op.netns, qdisc.remove(index), op, _UNSHAPED)
                case Bridge() | Veth() | Vxlan() | Dummy():
                    ends |= _living_end(op, dead)
                case _:
                    pass
        if dead:
            for op in self._installed.values():
                if isinstance(op, Veth) and (op.netns in dead) != (op.peer_netns in dead):
                    ends |= _living_end(op, dead)
        session.flush()
        self._delete_links(session, ends, removed[0])
        for name in dead:
            if name in self.fds:
                os.close(self.fds.pop(name))
        gone = {op.identity for op in removed}
        self._installed = {
            identity: op for identity, op in self._installed.items() if identity not in gone and not _lives_in(op, dead)
        }

    def _delete_links(self, session: Session, ends: Iterable[tuple[str, str]], op: Op) -> None:
        found: dict[str, list[int]] = defaultdict(list)
        for netns, device in ends:
            index = session.index(netns, device) if netns in self.fds else None
            if index is not None:
                found[netns].append(index)
                session.table(netns).forget(device)
        for netns, indices in found.items():
            if len(indices) == 1:
                session.queue(netns, nl.del_link(indices[0]), op, GONE)
                continue
            for index in indices:
                session.queue(netns, nl.set_link(index, group=_DOOMED_GROUP), op, GONE)
            session.queue(netns, nl.del_link_group(_DOOMED_GROUP), op, GONE)
        session.flush()


def _delete(session: Session, op: _OnDevice) -> None:
    index = session.index(op.netns, op.device) if op.device else 0
    if index is None:
        return  # it went with its device
    match op:
        case DeviceAddress():
            session.queue(op.netns, nl.del_address(index, op.address, op.prefixlen), op, GONE)
        case Route():
            session.queue(op.netns, nl.del_route(op.destination, _hop(op, index)), op, GONE)
        case Neighbour():
            session.queue(op.netns, nl.del_neighbour(index, op.address), op, GONE)
        case Forwarding():
            session.queue(op.netns, nl.del_forwarding(index, op.mac), op, GONE)


def _connect(session: Session, op: DeviceAddress, tolerated: frozenset[int]) -> None:
    """The kernel makes a connected route together with its address: an address that is still there does not bring it back."""
    index = session.index(op.netns, op.device)
    network = ip_interface(f"{op.address}/{op.prefixlen}").network
    if index is not None and op.prefix_route and network.prefixlen < network.max_prefixlen and not op.address.is_loopback:
        session.queue(op.netns, nl.connected_route(network, index, op.address), op, tolerated)


def _hop(op: Route, index: int) -> nl.Hop:
    return nl.Hop(index, op.gateway, op.source, op.onlink, op.type == "blackhole")


def _in_making_order(ops: Iterable[Op]) -> list[Op]:
    return sorted(ops, key=lambda op: ORDER.index(type(op)))


def _in_order(ops: Iterable[_OnDevice]) -> list[_OnDevice]:
    """Addresses, then routes (those of devices before those through a gateway), then neighbours."""

    def rank(op: _OnDevice) -> int:
        match op:
            case DeviceAddress():
                return 0
            case Route():
                return 1 if op.gateway is None else 2
            case Neighbour() | Forwarding():
                return 3

    return sorted(ops, key=rank)


def _living_end(op: Bridge | Veth | Vxlan | Dummy, dead: set[str]) -> set[tuple[str, str]]:
    if op.netns not in dead:
        return {(op.netns, op.device)}
    if isinstance(op, Veth) and op.peer_netns not in dead:
        return {(op.peer_netns, op.peer_device)}
    return set()


def _lives_in(op: Op, names: set[str]) -> bool:
    match op:
        case Netns(name):
            return name in names
        case Veth():
            return op.netns in names or op.peer_netns in names
        case Bridge() | Vxlan() | Dummy() | Qdisc() | DeviceAddress() | Route() | Neighbour() | Forwarding() | Sysctl():
            return op.netns in names
        case _:
            return False


def _down_in(op: Op) -> Iterable[str]:
    if isinstance(op, Veth):
        return [*(() if op.up else (op.netns,)), *(() if op.peer_up else (op.peer_netns,))]
    return ()
