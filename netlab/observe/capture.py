"""Packets of many namespaces at once, in the order in which they passed, as one pcapng stream (or classic pcap, for tcpdump).

Decides order and naming: an interface is named by its place, `pod/default/client:eth0`. Refuses to know the lab: it is given
places. Runs until a number of packets, a time, Ctrl-C, a closed pipe, or a byte on `stop_fd`. A packet that passes several
interfaces is recorded at each. Frames are held back HOLD_S before they are written, so that those of different namespaces can be
sorted.
"""

import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from netlab.errors import KernelError
from netlab.kernel import packet_sockets
from netlab.kernel.namespaces import entered
from netlab.kernel.packet_sockets import OUTGOING, Frame, Instruction, Tap
from netlab.observe import pcap

HOLD_S = 0.02
SNAP_BYTES = 262_144
FIRST_SLL2_NUMBER = 1_000_000
"""Above any interface index of the machine itself, whose name tcpdump would print instead of the number."""
Format = Literal["pcapng", "pcap", "sll2"]


@dataclass(frozen=True, slots=True)
class Place:
    """A namespace to watch: its name in the capture, and what `open_netns` opens."""

    name: str
    netns: str


@dataclass(frozen=True, slots=True)
class Captured:
    """What a capture came to. `dropped`: packets that passed but could not be recorded (the reader was too slow)."""

    packets: int
    dropped: int
    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to record and when to end. `device` '' is every interface; `program` comes from tcpdump.compile_filter."""

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


@dataclass(slots=True)
class _Writer:
    """Encodes frames; every write is whole, because the reader of a pipe follows it live."""

    fd: int
    wanted: Wanted
    numbers: dict[str, int] = field(default_factory=dict)
    packets: int = 0

    def start(self) -> None:
        match self.wanted.format:
            case "pcapng":
                self._write(pcap.section("netlab", self.wanted.comment))
            case "pcap":
                self._write(pcap.pcap_header(pcap.ETHERNET, self.wanted.snap_bytes))
            case "sll2":
                self._write(pcap.pcap_header(pcap.LINUX_SLL2, self.wanted.snap_bytes))

    def frame(self, place: str, frame: Frame) -> None:
        name = f"{place}:{frame.device}"
        data, length = frame.data, frame.length
        match self.wanted.format:
            case "pcapng":
                new = name not in self.numbers
                number = self.numbers.setdefault(name, len(self.numbers))
                head = pcap.interface(name, snap_bytes=self.wanted.snap_bytes) if new else b""
                self._write(head + pcap.packet(number, frame.time_ns, data, length, frame.pkttype == OUTGOING))
            case "pcap":
                self._write(pcap.pcap_record(frame.time_ns, data, length))
            case "sll2":
                number = FIRST_SLL2_NUMBER + self.numbers.setdefault(name, len(self.numbers))
                if self.wanted.names_fd is not None:
                    os.write(self.wanted.names_fd, f"{name}\n".encode())
                self._write(pcap.pcap_record(frame.time_ns, pcap.sll2(data, number, frame.pkttype), length + 6))
        self.packets += 1

    def end(self, drops: dict[str, int]) -> None:
        if self.wanted.format != "pcapng":
            return
        now = time.time_ns()
        told = set()
        for name, number in self.numbers.items():
            place = name.rpartition(":")[0]
            self._write(pcap.statistics(number, now, 0 if place in told else drops.get(place, 0)))
            told.add(place)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.fd, view) :]


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
    with packet_sockets.stamped_time(), _taps(places, open_netns, wanted) as taps:
        writer = _Writer(out_fd, wanted)
        with suppress(BrokenPipeError, KeyboardInterrupt):
            writer.start()
            ready()
            _follow(taps, writer, wanted, stop_fd)
        drops = {name: tap.drops() for name, tap in taps.items()}
        with suppress(BrokenPipeError):
            writer.end(drops)
    return Captured(writer.packets, sum(drops.values()), tuple(writer.numbers))


@contextmanager
def _taps(places: Sequence[Place], open_netns: Callable[[str], int], wanted: Wanted) -> Iterator[dict[str, Tap]]:
    taps: dict[str, Tap] = {}
    try:
        for place in places:
            try:
                fd = open_netns(place.netns)
            except OSError as error:
                raise KernelError(f"cannot enter the namespace of {place.name}: {error.strerror}") from error
            try:
                with entered(fd):
                    taps[place.name] = packet_sockets.tap(wanted.program, wanted.snap_bytes, link_layer=True)
            finally:
                os.close(fd)
        yield taps
    finally:
        packet_sockets.close_taps(tuple(taps.values()))


def _follow(taps: dict[str, Tap], writer: _Writer, wanted: Wanted, stop_fd: int | None) -> None:
    poller = select.poll()
    names = {tap.fileno(): name for name, tap in taps.items()}
    for fd in (*names, *(() if stop_fd is None else (stop_fd,))):
        poller.register(fd, select.POLLIN)
    poller.register(writer.fd, select.POLLERR)  # a pipe whose reader has gone
    deadline = None if wanted.seconds is None else time.monotonic() + wanted.seconds
    held: list[tuple[int, str, Frame]] = []
    running = True
    try:
        while running:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            wait = HOLD_S if held else left
            for fd, events in poller.poll(None if wait is None else wait * 1000):
                if fd in names:
                    name = names[fd]
                    held += [(frame.time_ns, name, frame) for frame in taps[name].new(1024) if _is_wanted(frame, wanted)]
                elif fd == stop_fd or events & select.POLLERR:
                    running = False
            if _write_until(held, writer, wanted, time.time_ns() - int(HOLD_S * 1e9)):
                return
    finally:
        for name, tap in taps.items():
            held += [(frame.time_ns, name, frame) for frame in tap.new(1024) if _is_wanted(frame, wanted)]
        _write_until(held, writer, wanted, 1 << 63)


def _write_until(held: list[tuple[int, str, Frame]], writer: _Writer, wanted: Wanted, until_ns: int) -> bool:
    """Write, in order, what is older; True when enough packets are written."""
    held.sort(key=lambda entry: entry[0])
    written = 0
    for time_ns, name, frame in held:
        if time_ns > until_ns or (wanted.count is not None and writer.packets >= wanted.count):
            break
        writer.frame(name, frame)
        written += 1
    del held[:written]
    return wanted.count is not None and writer.packets >= wanted.count


def _is_wanted(frame: Frame, wanted: Wanted) -> bool:
    if wanted.device not in ("", "any", frame.device):
        return False
    return wanted.direction == "inout" or (wanted.direction == "out") == (frame.pkttype == OUTGOING)
