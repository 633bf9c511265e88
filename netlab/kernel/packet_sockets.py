"""Packet sockets: what passes a namespace's interfaces (Tap), what its IP stack accepts (Delivered), packets of our own making.

Decides how the kernel is asked. Refuses to know what the packets mean. Everything is opened in the namespace that the calling
thread is in: use it under `namespaces.entered`.

A Tap is a memory-mapped ring (PACKET_RX_RING, TPACKET_V2), because an ordinary user may not raise a socket's buffer above
net.core.rmem_max, but may have a ring of any size; reading it costs no system call. It sees every interface, both directions,
from the IP header on. A Delivered is a raw IP socket: it gets a copy of what passed PREROUTING, routing and INPUT, addressed to
this namespace, after every rewrite, on whatever interface it came, loopback included - what a server there would see.
"""

import ctypes
import mmap
import select
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from netlab.errors import KernelError, MachineError

Instruction = tuple[int, int, int, int]
"""One classic-BPF instruction: code, jump if true, jump if false, constant."""

ETH_P_ALL = 3
OUTGOING = 4
"""sll_pkttype of a packet that leaves through the interface; every other value is one that came in."""

_SOL_PACKET, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION = 263, 5, 6, 10
_SO_ATTACH_FILTER, _SO_MEMINFO, _SO_RCVBUFFORCE = 26, 55, 33
_BLOCK_BYTES = 16 * 1024
_FRAME = struct.Struct("=IIIHHII")  # tpacket2_hdr: status, len, snaplen, mac, net, sec, nsec
_LINK_LAYER = struct.Struct(
    "=H2xiHBB"
)  # sockaddr_ll, 32 bytes into the frame: family, (protocol), ifindex, hatype, pkttype, halen


class Frame(NamedTuple):
    """One packet at one interface. `data` starts at the IP header and may be cut at the ring's frame size."""

    time_ns: int
    ifindex: int
    pkttype: int
    data: bytes
    length: int


def attach_filter(sock: socket.socket, program: Sequence[Instruction]) -> None:
    """Let the kernel drop what the program does not accept."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(buffer)))


@dataclass(slots=True)
class Tap:
    """A ring that everything accepted by the filter falls into. Not emptied while it is used: size it for what is to come."""

    sock: socket.socket
    ring: mmap.mmap
    frames: int
    frame_bytes: int
    cursor: int = 0

    def fileno(self) -> int:
        return self.sock.fileno()

    def new(self) -> Iterator[Frame]:
        """Frames that came since the last call, in order."""
        per_block = _BLOCK_BYTES // self.frame_bytes
        while self.cursor < self.frames:
            start = self.cursor // per_block * _BLOCK_BYTES + self.cursor % per_block * self.frame_bytes
            status, length, snaplen, _mac, net, seconds, nanoseconds = _FRAME.unpack_from(self.ring, start)
            if not status & 1:
                return
            self.cursor += 1
            _family, ifindex, _hatype, pkttype, _ = _LINK_LAYER.unpack_from(self.ring, start + 32)
            data = self.ring[start + net : start + net + snaplen]
            yield Frame(seconds * 1_000_000_000 + nanoseconds, ifindex, pkttype, data, length)

    def release(self) -> None:
        """Give all frames back to the kernel, which goes on where it was. For endless captures; needs a caught-up reader."""
        self.cursor = 0

    def drops(self) -> int:
        """Packets lost since the last call because the ring was full."""
        _, drops = struct.unpack("=II", self.sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(drops)

    def close(self) -> None:
        self.ring.close()
        self.sock.close()


def tap(program: Sequence[Instruction], frames: int, frame_bytes: int = 192) -> Tap:
    """A tap of this namespace's interfaces, present and future. `frame_bytes` - 80 bytes of each packet are kept."""
    sock = _socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    try:
        attach_filter(sock, program)
        per_block = _BLOCK_BYTES // frame_bytes
        blocks = -(-frames // per_block)
        sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, 1)
        request = struct.pack("=IIII", _BLOCK_BYTES, blocks, frame_bytes, blocks * per_block)
        sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)  # what came before the filter was attached is thrown away here
        ring = mmap.mmap(sock.fileno(), blocks * _BLOCK_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
    except OSError as error:
        sock.close()
        raise KernelError(f"cannot set up a packet ring of {frames} frames: {error.strerror}") from error
    return Tap(sock, ring, blocks * per_block, frame_bytes)


@dataclass(slots=True)
class Delivered:
    """Packets of one IP protocol that this namespace's own stack accepted."""

    sock: socket.socket
    protocol: int

    def fileno(self) -> int:
        return self.sock.fileno()

    def new(self, maximum: int = 1 << 20) -> Iterator[bytes]:
        """Packets that are waiting, each from its IP header on."""
        for _ in range(maximum):
            try:
                yield self.sock.recv(2048, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return

    def drops(self) -> int:
        """Packets lost so far because the socket's buffer was full (SK_MEMINFO_DROPS)."""
        return int(struct.unpack("=9I", self.sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[8])

    def close(self) -> None:
        self.sock.close()


def delivered(protocol: int, program: Sequence[Instruction]) -> Delivered:
    """What this namespace receives of an IP protocol (6, 17, 132, 1), filtered; the receive buffer as large as may be."""
    sock = _socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    attach_filter(sock, program)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
    except PermissionError:  # not root of the machine: up to net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
    with_early = Delivered(sock, protocol)
    for _ in with_early.new():
        pass  # what came before the filter was attached
    return with_early


def injector() -> socket.socket:
    """A raw socket whose packets bring their own IP header and meet this namespace's OUTPUT hooks and routes."""
    return _socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def interface_names() -> dict[int, str]:
    """ifindex -> name in this namespace."""
    return dict(socket.if_nameindex())


def wait_readable(fds: Sequence[int], timeout_s: float | None) -> list[int]:
    """Those of `fds` that are readable, after at most `timeout_s`."""
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return [fd for fd, _ in poller.poll(None if timeout_s is None else timeout_s * 1000)]


def _socket(family: int, kind: int, protocol: int) -> socket.socket:
    try:
        return socket.socket(family, kind, protocol)
    except PermissionError:
        raise MachineError("raw sockets are not allowed here: run inside the lab's user namespace, or as root") from None
    except OSError as error:
        raise KernelError(f"cannot open a raw socket: {error.strerror}") from error
