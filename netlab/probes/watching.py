"""Eyes: the sockets that watch one namespace during a probe, and the proof that they see.

Decides what is opened where and when an eye counts as blind. What packets mean stands in packets.py, what a flow makes of them in
flows.py.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from netlab.errors import NetlabError
from netlab.kernel import packet_sockets
from netlab.kernel.namespaces import entered
from netlab.kernel.packet_sockets import Delivered, Instruction, Tap
from netlab.model import Protocol
from netlab.probes.packets import NUMBERS
from netlab.probes.values import Watched

LOOPBACK = IPv4Address("127.0.0.1")
OwnTest = Callable[[IPv4Address], bytes]


@dataclass(slots=True, eq=False)
class Eye:
    """What watches one namespace. `proved`: protocols whose test packet from the namespace's own address was seen."""

    netns: str
    label: str
    fd: int
    receiver: bool
    sender: bool
    address: IPv4Address
    tap: Tap | None = None
    raw: list[Delivered] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    proved: set[int] = field(default_factory=set)
    passing: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Plan:
    """What to open: the filter of taps and receivers, that of a sender's UDP socket, protocols. `tapped`: interfaces too."""

    program: Sequence[Instruction]
    udp_program: Sequence[Instruction]
    protocols: tuple[Protocol, ...]
    senders: frozenset[str]
    tapped: bool


@contextlib.contextmanager
def eyes(open_netns: Callable[[str], int], watched: Mapping[str, Watched], plan: Plan) -> Iterator[dict[str, Eye]]:
    """Open eyes, by namespace. One that cannot be opened is there all the same, with its problem."""
    opened: dict[str, Eye] = {}
    try:
        for netns, what in watched.items():
            opened[netns] = eye = _eye(open_netns, netns, what, plan)
            if eye.fd >= 0:
                _open(eye, plan)
        yield opened
    finally:
        packet_sockets.close_taps([eye.tap for eye in opened.values() if eye.tap is not None])
        for eye in opened.values():
            _close(eye)


def _eye(open_netns: Callable[[str], int], netns: str, what: Watched, plan: Plan) -> Eye:
    address = next((address for address in what.addresses if isinstance(address, IPv4Address)), LOOPBACK)
    eye = Eye(netns, what.name, -1, what.receiver, netns in plan.senders, address, passing=what.passing)
    try:
        eye.fd = open_netns(netns)
    except (OSError, NetlabError) as error:
        eye.problems.append(f"cannot be entered: {error}")
    return eye


def _open(eye: Eye, plan: Plan) -> None:
    protocols = list(plan.protocols)
    if eye.sender and Protocol.ICMP not in protocols:
        protocols.append(Protocol.ICMP)
    try:
        with entered(eye.fd):
            if plan.tapped:
                eye.tap = packet_sockets.tap(plan.program)
            for protocol in protocols:
                program = plan.udp_program if eye.sender and protocol is Protocol.UDP else plan.program
                eye.raw.append(packet_sockets.delivered(NUMBERS[protocol], program))
    except (OSError, NetlabError) as error:
        eye.problems.append(f"cannot be watched: {error}")


def send_own_tests(eye: Eye, tests: Sequence[OwnTest], address: IPv4Address) -> None:
    """Send the eye's test packets from `address` to itself, inside its namespace."""
    if eye.fd < 0:
        return
    with contextlib.suppress(OSError), entered(eye.fd), packet_sockets.injector() as sock:
        for test in tests:
            sock.sendto(test(address), (str(address), 0))


def holds(netns_fd: int, address: IPv4Address) -> bool:
    """Whether the address belongs to the namespace, so that answers come back to it."""
    with entered(netns_fd), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind((str(address), 0))
        except OSError:
            return False
    return True


def lost(eye: Eye) -> list[str]:
    """Sentences about packets that the eye's sockets had to drop."""
    sentences = []
    drops = sum(raw.drops() for raw in eye.raw)
    if drops:
        sentences.append(f"{drops} packets were lost at a receiving socket")
    if eye.tap is not None and (drops := eye.tap.drops()):
        sentences.append(f"{drops} packets were lost at a packet socket")
    return sentences


def _close(eye: Eye) -> None:
    for raw in eye.raw:
        raw.close()
    if eye.fd >= 0:
        os.close(eye.fd)
