"""Packets of many namespaces at once, in the order in which they passed, as one pcapng stream (or classic pcap, for tcpdump).

Decides order and naming: an interface is named by its place, `pod/default/client:eth0`. Refuses to know the lab: it is given
places. Runs until a number of packets, a time, Ctrl-C, a closed pipe, or a byte on `stop_fd`. A packet that passes several
interfaces is recorded at each. Frames are held back HOLD_S before they are written, so that those of different namespaces can be
sorted, and what conntrack tells of their connections is there in time.
"""

import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Literal

from netlab.errors import KernelError
from netlab.kernel import conntrack, packet_ring, packet_sockets
from netlab.kernel.namespaces import entered
from netlab.kernel.packet_ring import RETIRE_MS, Ring
from netlab.kernel.packet_sockets import OUTGOING, Frame, Instruction, Tap
from netlab.model import NOTHING, Address
from netlab.observe import pcap
from netlab.observe.annotating import Annotator
from netlab.observe.capture_files import Output, Rotation

HOLD_S = 0.03
"""More than a ring's RETIRE_MS, by which packets of another namespace may come late."""
SNAP_BYTES = 262_144
AT_ONCE = 512
"""Frames to a write, at most: so many names of interfaces fit into a pipe."""
FIRST_SLL2_NUMBER = 1_000_000
"""Above any interface index of the machine itself, whose name tcpdump would print instead of the number."""
Format = Literal["pcapng", "pcap", "sll2"]
Source = Ring | Tap
Held = tuple[int, str, Frame]
"""When it passed (ns), the place, and the frame."""


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace to watch: its name in the capture, what `open_netns` opens, and what is told of it."""

    name: str
    netns: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture came to. `dropped`: packets that passed but could not be recorded (the reader was too slow).

    interfaces: where packets were met, as far as the format tells. begun: False when it was interrupted before it wrote anything.
    """

    packets: int
    dropped: int
    interfaces: tuple[str, ...]
    begun: bool = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to record and when to end. `device` '' is every interface; `program` comes from tcpdump.compile_filter.

    names: who has which address, for a pcapng's name resolution block. annotator, nodes: comments on packets (pcapng), and the
    places whose conntrack is asked for them. rotation: files instead of `out_fd`.
    """

    program: Sequence[Instruction] = ((0x06, 0, 0, 0x40000),)
    count: int | None = None
    seconds: float | None = None
    device: str = ""
    direction: Literal["in", "out", "inout"] = "inout"
    snap_bytes: int = SNAP_BYTES
    format: Format = "pcapng"
    comment: str = ""
    names_fd: int | None = None
    """Where the name of its interface is written, one line for each sll2 packet (that format has only numbers)."""
    names: Mapping[Address, str] = NOTHING
    annotator: Annotator | None = None
    nodes: tuple[Place, ...] = ()
    rotation: Rotation | None = None


@dataclass(slots=True)
class _Writer:
    """Encodes frames. What belongs together is written at once, because the reader of a pipe follows it live."""

    out: Output
    wanted: Wanted
    descriptions: Mapping[str, str]
    there: Sequence[str] = ()
    """Interfaces that there are at the beginning: each has its block, whether packets pass it or not."""
    numbers: dict[str, int] = field(default_factory=dict)
    seen: dict[str, None] = field(default_factory=dict)
    packets: int = 0

    def start(self) -> None:
        """Begin a file, or the stream."""
        self.out.begin()
        self.numbers.clear()
        match self.wanted.format:
            case "pcapng":
                blocks = b"".join(self._interface(name) for name in self.there)
                self.out.write(pcap.section("netlab", self.wanted.comment) + pcap.names(self.wanted.names) + blocks)
            case "pcap":
                self.out.write(pcap.pcap_header(pcap.ETHERNET, self.wanted.snap_bytes))
            case "sll2":
                self.out.write(pcap.pcap_header(pcap.LINUX_SLL2, self.wanted.snap_bytes))

    def frames(self, held: Sequence[Held]) -> None:
        """Write these, in this order."""
        for start in range(0, len(held), AT_ONCE):
            if self.out.is_full:
                self.start()
            some = held[start : start + AT_ONCE]
            names = [f"{place}:{frame.device}" for _, place, frame in some]
            if self.wanted.names_fd is not None:
                os.write(self.wanted.names_fd, "".join(f"{name}\n" for name in names).encode())
            self.out.write(b"".join(self._encoded(name, held[2]) for name, held in zip(names, some, strict=True)))
            self.packets += len(some)

    def _encoded(self, name: str, frame: Frame) -> bytes:
        time_ns, _, kind, data, length = frame
        match self.wanted.format:
            case "pcapng":
                number = self.numbers.get(name)
                head = b"" if number is not None else self._interface(name)
                comment = self.wanted.annotator.comment(data) if self.wanted.annotator is not None else ""
                self.seen[name] = None
                return head + pcap.packet(self.numbers[name], time_ns, data, length, kind == OUTGOING, comment)
            case "pcap":
                return pcap.pcap_record(time_ns, data, length)
            case "sll2":
                number = FIRST_SLL2_NUMBER + self.numbers.setdefault(name, len(self.numbers))
                self.seen[name] = None
                return pcap.pcap_record(time_ns, pcap.sll2(data, number, kind), length + 6)

    def _interface(self, name: str) -> bytes:
        self.numbers[name] = len(self.numbers)
        return pcap.interface(name, self.descriptions.get(name.rpartition(":")[0], ""), self.wanted.snap_bytes)

    def end(self, drops: Mapping[str, int]) -> None:
        if self.wanted.format != "pcapng":
            return
        now = time.time_ns()
        told = set()
        for name, number in self.numbers.items():
            place = name.rpartition(":")[0]
            self.out.write(pcap.statistics(number, now, 0 if place in told else drops.get(place, 0)))
            told.add(place)


@dataclass(slots=True)
class _Sources:
    """What is read: a ring, or a plain packet socket where rings cannot be had, by place; and the nodes' new connections."""

    packets: dict[str, Source] = field(default_factory=dict)
    connections: dict[str, conntrack.Events] = field(default_factory=dict)
    there: list[str] = field(default_factory=list)


def capture(
    places: Sequence[Place],
    open_netns: Callable[[str], int],
    out_fd: int,
    wanted: Wanted,
    ready: Callable[[], None] = lambda: None,
    stop_fd: int | None = None,
) -> Captured:
    """Record until the end that `wanted` names. `ready` is called when every place is being watched.

    Raises KernelError (a place that cannot be entered), MachineError (no permission for packet sockets), OSError (disk full).
    """
    with packet_sockets.stamped_time(), _sources(places, open_netns, wanted) as sources:
        out = Output(out_fd if wanted.rotation is None else -1, wanted.rotation)
        writer = _Writer(out, wanted, {place.name: place.description for place in places}, sources.there)
        with suppress(BrokenPipeError, KeyboardInterrupt):
            writer.start()
            ready()
            _follow(sources, writer, wanted, stop_fd)
        drops = {name: source.drops() for name, source in sources.packets.items()}
        with suppress(BrokenPipeError):
            writer.end(drops)
        writer.out.close()
    return Captured(writer.packets, sum(drops.values()), tuple(writer.seen))


@contextmanager
def _sources(places: Sequence[Place], open_netns: Callable[[str], int], wanted: Wanted) -> Iterator[_Sources]:
    found = _Sources()
    size = packet_ring.size_of_each(len(places))
    try:
        if wanted.annotator is not None:
            for node in wanted.nodes:
                with _inside(node, open_netns):
                    found.connections[node.name] = conntrack.Events()  # before the table is read: nothing falls between
                    with suppress(OSError), conntrack.Table() as table:
                        wanted.annotator.learn(node.name, table.entries())
        for place in places:
            with _inside(place, open_netns):
                found.packets[place.name] = _source(wanted, size)
                found.there += [f"{place.name}:{name}" for _, name in socket.if_nameindex() if wanted.device in ("", "any", name)]
        yield found
    finally:
        for events in found.connections.values():
            events.close()
        packet_sockets.close_taps(tuple(found.packets.values()))


@contextmanager
def _inside(place: Place, open_netns: Callable[[str], int]) -> Iterator[None]:
    try:
        fd = open_netns(place.netns)
    except OSError as error:
        raise KernelError(f"cannot enter the namespace of {place.name}: {error.strerror}") from error
    try:
        with entered(fd):
            yield
    finally:
        os.close(fd)


def _source(wanted: Wanted, size_bytes: int) -> Source:
    try:
        return packet_ring.ring(wanted.program, size_bytes, wanted.snap_bytes)
    except KernelError:  # no memory for it: slower, and less is kept while the reader is busy
        return packet_sockets.tap(wanted.program, wanted.snap_bytes, link_layer=True)


def _follow(sources: _Sources, writer: _Writer, wanted: Wanted, stop_fd: int | None) -> None:
    poller = select.poll()
    readers: dict[int, Callable[[], None]] = {}
    held: list[Held] = []
    for name, source in sources.packets.items():
        readers[source.fileno()] = partial(_read, source, name, held, wanted)
    for name, events in sources.connections.items():
        readers[events.fileno()] = partial(_learn, events, name, wanted)
    for fd in (*readers, *(() if stop_fd is None else (stop_fd,))):
        poller.register(fd, select.POLLIN)
    watched = writer.out.fd if wanted.rotation is None else -1
    if watched >= 0:
        poller.register(watched, select.POLLERR)  # a pipe whose reader has gone
    deadline = None if wanted.seconds is None else time.monotonic() + wanted.seconds
    running = True
    try:
        while running:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            wait = HOLD_S if held else left
            ready = poller.poll(None if wait is None else wait * 1000)
            seen_ns = time.time_ns()  # reading all of it takes its time, in which more comes to what has been read
            for fd, happened in ready:
                if fd in readers:
                    readers[fd]()
                elif fd == stop_fd or happened & select.POLLERR:
                    running = False
            if _write_until(held, writer, wanted, seen_ns - int(HOLD_S * 1e9)):
                return
    finally:
        _last(readers, sources)
        _write_until(held, writer, wanted, 1 << 63)


def _last(readers: Mapping[int, Callable[[], None]], sources: _Sources) -> None:
    """Read what passed until now: a ring hands its last block over only RETIRE_MS after that began."""
    poller = select.poll()
    for source in sources.packets.values():
        poller.register(source.fileno(), select.POLLIN)
    end = time.monotonic() + 10 * RETIRE_MS / 1000
    while (left := end - time.monotonic()) > 0:
        ready = poller.poll(min(left, 3 * RETIRE_MS / 1000) * 1000)
        if not ready:
            break
        for fd, _ in ready:
            readers[fd]()
    for events in sources.connections.values():
        readers[events.fileno()]()


def _read(source: Source, name: str, held: list[Held], wanted: Wanted) -> None:
    if wanted.device in ("", "any") and wanted.direction == "inout":
        held += [(frame[0], name, frame) for frame in source.new()]
    else:
        held += [(frame[0], name, frame) for frame in source.new() if _is_wanted(frame, wanted)]


def _learn(events: conntrack.Events, node: str, wanted: Wanted) -> None:
    if wanted.annotator is not None:
        wanted.annotator.learn(node, events.new())


def _write_until(held: list[Held], writer: _Writer, wanted: Wanted, until_ns: int) -> bool:
    """Write, in order, what is older; True when enough packets are written."""
    held.sort(key=itemgetter(0))
    ripe = len(held)
    while ripe and held[ripe - 1][0] > until_ns:
        ripe -= 1
    if wanted.count is not None:
        ripe = min(ripe, wanted.count - writer.packets)
    writer.frames(held[:ripe])
    del held[:ripe]
    return wanted.count is not None and writer.packets >= wanted.count


def _is_wanted(frame: Frame, wanted: Wanted) -> bool:
    if wanted.device not in ("", "any", frame.device):
        return False
    return wanted.direction == "inout" or (wanted.direction == "out") == (frame.pkttype == OUTGOING)
