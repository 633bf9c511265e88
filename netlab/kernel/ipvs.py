"""Virtual servers over generic netlink: packed, listed and changed in one namespace. Needs no ipvsadm.

Decides byte layouts (linux/ip_vs.h) and what a change of a virtual server is in messages. Refuses to know Services and labs.

A real server that is wanted no more and has connections gets weight 0: it takes no new ones, and keeps those that it has. UDP has
no connections to end, and IPVS forgets its flows with their server (expire_nodest_conn), so such a server goes at once.
Source: kubernetes pkg/proxy/ipvs/graceful_termination.go, v1.36.
"""

import errno
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from socket import AF_INET, AF_INET6

from netlab.errors import KernelError
from netlab.kernel import netlink as nl
from netlab.kernel.namespaces import entered
from netlab.model import Address, Protocol
from netlab.ops import RealServer, VirtualServer

_CTRL, _GETFAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2
_NEW_SERVICE, _SET_SERVICE, _DEL_SERVICE, _GET_SERVICE = 1, 2, 3, 4
_NEW_DEST, _SET_DEST, _DEL_DEST, _GET_DEST = 5, 6, 7, 8
_SERVICE, _DEST = 1, 2
_SVC_AF, _SVC_PROTOCOL, _SVC_ADDR, _SVC_PORT, _SVC_SCHED, _SVC_FLAGS, _SVC_TIMEOUT, _SVC_NETMASK = 1, 2, 3, 4, 6, 7, 8, 9
_RS_ADDR, _RS_PORT, _RS_FORWARD, _RS_WEIGHT, _RS_UPPER, _RS_LOWER, _RS_ACTIVE, _RS_INACTIVE, _RS_AF = 1, 2, 3, 4, 5, 6, 7, 8, 11
_PERSISTENT = 1
_NAT = 0
_NESTED = 0x8000
NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
_PROTOCOLS = {number: protocol for protocol, number in NUMBERS.items()}
_GONE = frozenset({errno.ESRCH, errno.ENOENT})

Service = tuple[Protocol, Address, int]
Target = tuple[Address, int]


@dataclass(frozen=True, slots=True)
class Real:
    """A real server as the kernel has it; `connections`: established ones and those that are ending."""

    weight: int
    connections: int = 0


@dataclass(slots=True)
class Listed:
    """A virtual server as the kernel has it."""

    scheduler: str
    persistence_s: int | None
    real: dict[Target, Real] = field(default_factory=dict)


def service_of(op: VirtualServer) -> Service:
    return (op.protocol, op.address, op.port)


class Table:
    """The virtual servers of one namespace."""

    def __init__(self, fd: int) -> None:
        with entered(fd):
            self._sock = nl.Socket(nl.NETLINK_GENERIC)
        self._family = _family(self._sock)

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    # ------------------------------------------------------------ what there is

    def services(self) -> dict[Service, Listed]:
        """Every virtual server with its real servers. Those of firewall marks are nobody's here, and left out."""
        found: dict[Service, Listed] = {}
        for _, body in self._sock.dump(self._message(_GET_SERVICE)):
            said = nl.attributes(nl.attributes(body, 4)[_SERVICE])
            if _SVC_PROTOCOL in said and _number(said[_SVC_PROTOCOL]) in _PROTOCOLS:
                service = _service_in(said)
                found[service] = Listed(_text(said[_SVC_SCHED]), _persistence(said), self.real_servers(service))
        return found

    def real_servers(self, service: Service) -> dict[Target, Real]:
        """The virtual server's real servers, in the kernel's order; empty too where there is no such virtual server."""
        try:
            rows = self._sock.dump(self._message(_GET_DEST, _nested(_SERVICE, _which(service))))
        except OSError as error:
            if error.errno in _GONE:
                return {}
            raise
        found: dict[Target, Real] = {}
        for _, body in rows:
            said = nl.attributes(nl.attributes(body, 4)[_DEST])
            version = _number(said[_RS_AF]) if _RS_AF in said else AF_INET if service[1].version == 4 else AF_INET6
            connections = _number(said[_RS_ACTIVE]) + _number(said[_RS_INACTIVE])
            target = (_address(said[_RS_ADDR], version), int.from_bytes(said[_RS_PORT][:2], "big"))
            found[target] = Real(_number(said[_RS_WEIGHT]), connections)
        return found

    # ------------------------------------------------------------ changing it

    def make(self, ops: Sequence[VirtualServer]) -> dict[Service, set[Target]]:
        """Make the virtual servers be as the ops say, whatever is there; which real servers are leaving, by virtual server.

        Raises: KernelError with the kernel's words for each that it refused.
        """
        new = [self._message(_NEW_SERVICE, _nested(_SERVICE, _whole(op))) for op in ops]
        there: list[VirtualServer] = []
        failures: list[str] = []
        for refused in self._sock.run(new):
            op = ops[refused.position]
            if refused.errno == errno.EEXIST:
                there.append(op)
            else:
                failures.append(f"{_shown(op)} {op.scheduler}: {refused.text}")
        known = {service_of(op) for op in there}
        fresh = [op for op in ops if service_of(op) not in known]
        failures += self._send([(op, _NEW_DEST, one) for op in fresh for one in op.real_servers])
        leaving: dict[Service, set[Target]] = {}
        for op in there:
            self._sock.run([self._message(_SET_SERVICE, _nested(_SERVICE, _whole(op)))])
            changes, going = self._changes(op)
            failures += self._send(changes)
            if going:
                leaving[service_of(op)] = going
        if failures:
            raise KernelError("the kernel refused virtual servers:\n" + "\n".join(f"  {line}" for line in failures[:8]))
        return leaving

    def _changes(self, op: VirtualServer) -> tuple[list[tuple[VirtualServer, int, RealServer]], set[Target]]:
        there = self.real_servers(service_of(op))
        wanted = {(one.address, one.port): one for one in op.real_servers}
        changes = [(op, _NEW_DEST, one) for target, one in wanted.items() if target not in there]
        changes += [(op, _SET_DEST, wanted[target]) for target, real in there.items() if _reweighed(wanted.get(target), real)]
        going: set[Target] = set()
        for target, real in there.items():
            if target in wanted:
                continue
            if op.protocol is Protocol.UDP or not real.connections:
                changes.append((op, _DEL_DEST, RealServer(*target)))
            else:
                going.add(target)
                if real.weight:
                    changes.append((op, _SET_DEST, RealServer(*target, weight=0)))
        return changes, going

    def _send(self, changes: Sequence[tuple[VirtualServer, int, RealServer]]) -> list[str]:
        messages = [
            self._message(command, _nested(_SERVICE, _which(service_of(op))) + _nested(_DEST, _real(one)))
            for op, command, one in changes
        ]
        failures = []
        for refused in self._sock.run(messages):
            op, command, one = changes[refused.position]
            if not (command == _DEL_DEST and refused.errno in _GONE):
                failures.append(f"{_shown(op)} -> {one.address}:{one.port}: {refused.text}")
        return failures

    def delete(self, services: Iterable[Service]) -> None:
        """Without them; one that is not there is no error."""
        messages = [self._message(_DEL_SERVICE, _nested(_SERVICE, _which(service))) for service in services]
        for refused in self._sock.run(messages):
            if refused.errno not in _GONE:
                raise KernelError(f"a virtual server cannot be deleted: {refused.text}")

    def let_go(self, service: Service, targets: Iterable[Target], at_once: bool) -> set[Target]:
        """Delete those of the leaving real servers that have no connections, or (`at_once`) all. Who is still there."""
        there = self.real_servers(service)
        staying: set[Target] = set()
        messages = []
        for target in targets:
            real = there.get(target)
            if real is None or real.weight:
                continue  # gone already, or wanted again
            if real.connections and not at_once:
                staying.add(target)
            else:
                body = _nested(_SERVICE, _which(service)) + _nested(_DEST, _real(RealServer(*target)))
                messages.append(self._message(_DEL_DEST, body))
        self._sock.run(messages)
        return staying

    def _message(self, command: int, body: bytes = b"") -> nl.Message:
        return nl.Message(self._family, 0, struct.pack("=BBH", command, 1, 0) + body)


def _reweighed(wanted: RealServer | None, real: Real) -> bool:
    return wanted is not None and wanted.weight != real.weight


def _family(sock: nl.Socket) -> int:
    """The number that the kernel gave to IPVS. Raises KernelError where it has none."""
    question = struct.pack("=BBH", _GETFAMILY, 1, 0) + nl.attr_text(_FAMILY_NAME, "IPVS")
    for body in sock.ask([nl.Message(_CTRL, 0, question)]):
        return _number(nl.attributes(body, 4)[_FAMILY_ID])
    raise KernelError("this kernel has no IPVS")


# ---------------------------------------------------------------- bytes


def _nested(kind: int, body: bytes) -> bytes:
    return nl.attr(kind | _NESTED, body)


def _which(service: Service) -> bytes:
    protocol, address, port = service
    af = AF_INET if address.version == 4 else AF_INET6
    return (
        nl.attr(_SVC_AF, struct.pack("=H", af))
        + nl.attr(_SVC_PROTOCOL, struct.pack("=H", NUMBERS[protocol]))
        + nl.attr(_SVC_ADDR, address.packed.ljust(16, b"\0"))
        + nl.attr(_SVC_PORT, struct.pack(">H", port))
    )


def _whole(op: VirtualServer) -> bytes:
    flags = _PERSISTENT if op.persistence_s is not None else 0
    mask = b"\xff\xff\xff\xff" if op.address.version == 4 else struct.pack("=I", 128)
    return (
        _which(service_of(op))
        + nl.attr_text(_SVC_SCHED, op.scheduler)
        + nl.attr(_SVC_FLAGS, struct.pack("=II", flags, 0xFFFFFFFF))
        + nl.attr_u32(_SVC_TIMEOUT, op.persistence_s or 0)
        + nl.attr(_SVC_NETMASK, mask)
    )


def _real(one: RealServer) -> bytes:
    af = AF_INET if one.address.version == 4 else AF_INET6
    return (
        nl.attr(_RS_ADDR, one.address.packed.ljust(16, b"\0"))
        + nl.attr(_RS_PORT, struct.pack(">H", one.port))
        + nl.attr_u32(_RS_FORWARD, _NAT)
        + nl.attr_u32(_RS_WEIGHT, one.weight)
        + nl.attr_u32(_RS_UPPER, 0)
        + nl.attr_u32(_RS_LOWER, 0)
        + nl.attr(_RS_AF, struct.pack("=H", af))
    )


def _service_in(said: dict[int, bytes]) -> Service:
    address = _address(said[_SVC_ADDR], _number(said[_SVC_AF]))
    return _PROTOCOLS[_number(said[_SVC_PROTOCOL])], address, int.from_bytes(said[_SVC_PORT][:2], "big")


def _persistence(said: dict[int, bytes]) -> int | None:
    flags, _ = struct.unpack_from("=II", said[_SVC_FLAGS])
    return _number(said[_SVC_TIMEOUT]) if flags & _PERSISTENT else None


def _address(raw: bytes, af: int) -> Address:
    return IPv4Address(raw[:4]) if af == AF_INET else IPv6Address(raw[:16])


def _number(raw: bytes) -> int:
    return int.from_bytes(raw[:4], "little" if struct.pack("=H", 1) == b"\1\0" else "big")


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _shown(op: VirtualServer) -> str:
    return f"{op.address}:{op.port}/{op.protocol.lower()}"
