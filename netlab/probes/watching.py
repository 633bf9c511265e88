"""Eyes: the sockets that watch one namespace during a probe, and the proof that they see.

Decides what is opened where and when an eye counts as blind. What packets mean stands in packets.py, what a flow makes of them in
flows.py.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from netlab.errors import NetlabError
from netlab.kernel import packet_sockets
from netlab.kernel.namespaces import entered
from netlab.kernel.packet_sockets import Delivered, Instruction, Program, Tap
from netlab.model import Address, Protocol
from netlab.probes.packets import LOOPBACK
from netlab.probes.spaces import KEPT, Space, Spaces
from netlab.probes.values import Watched

Spoken = tuple[int, Protocol]
"""IP version and protocol of some of the flows."""


@dataclass(frozen=True, slots=True)
class OwnTest:
    """Makes the test packet of one protocol and IP version, for any address."""

    version: int
    fill: Callable[[Address], bytes]


@dataclass(slots=True, eq=False)
class Eye:
    """What watches one namespace. `space`: None where it cannot be entered. `addresses`: by IP version, its own or loopback's.

    `proved`: (IP version, protocol number, whether from loopback) of the test packets that were seen.
    """

    netns: str
    label: str
    space: Space | None
    receiver: bool
    sender: bool
    addresses: Mapping[int, Address]
    tap: Tap | None = None
    raw: list[Delivered] = field(default_factory=list)
    own: list[Delivered] = field(default_factory=list)
    """Those of `raw` that end with the probe."""
    problems: list[str] = field(default_factory=list)
    proved: set[tuple[int, int, bool]] = field(default_factory=set)
    passing: frozenset[int] = frozenset()

    @property
    def fd(self) -> int:
        """A descriptor of the namespace; -1 where it cannot be entered."""
        return self.space.fd if self.space is not None else -1

    def tests_seen(self, loopback: bool, versions: tuple[int, ...] = (4, 6)) -> int:
        """How many tests of these IP versions were seen; with `loopback` those sent to the loopback address count, too."""
        return len({(ip, number) for ip, number, at_home in self.proved if ip in versions and (loopback or not at_home)})


@dataclass(frozen=True, slots=True)
class Plan:
    """What to open: the filter of taps and receivers, that of a sender's UDP socket, protocols. `tapped`: interfaces too.

    `kept`: a filter that accepts what `program` does and does not change, for sockets that stay open.
    """

    program: Sequence[Instruction]
    udp_program: Sequence[Instruction]
    protocols: tuple[Spoken, ...]
    senders: frozenset[str]
    tapped: bool
    kept: Program | None = None


@contextlib.contextmanager
def eyes(spaces: Spaces, watched: Mapping[str, Watched], plan: Plan) -> Iterator[dict[str, Eye]]:
    """Open eyes, by namespace. One that cannot be opened is there all the same, with its problem."""
    opened: dict[str, Eye] = {}
    programs = packet_sockets.program(plan.program), packet_sockets.program(plan.udp_program)
    spaces.keep_only(watched)
    try:
        for netns, what in watched.items():
            opened[netns] = eye = _eye(spaces, netns, what, plan)
            if eye.space is not None:
                _open(eye, eye.space, plan, programs)
        yield opened
    finally:
        packet_sockets.close_taps([eye.tap for eye in opened.values() if eye.tap is not None])
        for eye in opened.values():
            for raw in eye.own:
                raw.close()
            if eye.space is not None:
                spaces.give_back(eye.space)


def _eye(spaces: Spaces, netns: str, what: Watched, plan: Plan) -> Eye:
    addresses: dict[int, Address] = {**LOOPBACK, **{address.version: address for address in reversed(what.addresses)}}
    eye = Eye(netns, what.name, None, what.receiver, netns in plan.senders, addresses, passing=what.passing)
    try:
        eye.space = spaces.take(netns)
    except (OSError, NetlabError) as error:
        eye.problems.append(f"cannot be entered: {error}")
    return eye


def _open(eye: Eye, space: Space, plan: Plan, programs: tuple[Program, Program]) -> None:
    protocols = list(plan.protocols)
    if eye.sender:
        errors = dict.fromkeys((version, Protocol.ICMP) for version, _ in protocols)
        protocols += [spoken for spoken in errors if spoken not in protocols]
    try:
        if plan.tapped:
            with entered(space.fd):
                eye.tap = packet_sockets.tap(plan.program)
        for version, protocol in protocols:
            any_udp = eye.sender and protocol is Protocol.UDP
            if plan.kept is not None and protocol in KEPT and not any_udp:
                eye.raw.append(space.watch(version, protocol, plan.kept))
            else:
                eye.own.append(space.opened(version, protocol, programs[any_udp]))
                eye.raw.append(eye.own[-1])
    except (OSError, NetlabError) as error:
        eye.problems.append(f"cannot be watched: {error}")


def send_own_tests(eye: Eye, tests: Sequence[OwnTest], addresses: Mapping[int, Address]) -> None:
    """Send the eye's test packets from these addresses (by IP version), each to itself, inside its namespace."""
    if eye.space is None:
        return
    for version in dict.fromkeys(test.version for test in tests):
        address = addresses[version]
        with contextlib.suppress(OSError):
            sock = eye.space.injector(version)
            for test in tests:
                if test.version == version:
                    sock.sendto(test.fill(address), (str(address), 0))


def holds(netns_fd: int, address: Address) -> bool:
    """Whether the address belongs to the namespace, so that answers come back to it."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with entered(netns_fd), socket.socket(family, socket.SOCK_DGRAM) as sock:
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
