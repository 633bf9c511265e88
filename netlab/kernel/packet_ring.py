"""Packet rings: what passes a namespace's interfaces, read from memory that the kernel fills (PACKET_RX_RING, TPACKET_V3).

For captures, where a system call for each packet would be too slow. Decides how large a ring is and how its blocks are read; what
a Tap gives (packet_sockets.py), a Ring gives, too. Opened in the namespace that the calling thread is in.

Theory of operation. The kernel fills one block after the other and hands each over when it is full, or RETIRE_MS after its first
packet; then the block is ours until its status is set back. A packet that finds no block of the kernel's is counted as dropped.
Source: Documentation/networking/packet_mmap.rst, include/uapi/linux/if_packet.h.
"""

import contextlib
import errno
import fcntl
import mmap
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from netlab.errors import KernelError
from netlab.kernel.packet_sockets import SO_TIMESTAMPNS, Frame, Instruction, attach_filter, bind_everywhere, packet_socket

RETIRE_MS = 8
BLOCK_BYTES = 1 << 17
"""Holds a packet of 64 KiB, which is what a veth passes with offloads on."""
MOST_BYTES, ALL_BYTES = 4 << 20, 200 << 20
"""Of one ring, and of all rings of a capture together."""
_SOL_PACKET, _PACKET_RX_RING, _PACKET_STATISTICS, _PACKET_VERSION, _TPACKET_V3 = 263, 5, 6, 10, 2
_SIOCGIFNAME = 0x8910
_KERNEL, _USER = 0, 1
_STATUS = struct.Struct("=I")
_BLOCK = struct.Struct("=III")  # status, packets, offset of the first one: from byte 8 of a block
_PACKET = struct.Struct("=IIIIIIHH24xi2xB")  # tpacket3_hdr up to its end (48 bytes), then sockaddr_ll's index and type


@dataclass(slots=True)
class Ring:
    """What passes every interface of one namespace, present and future, with its Ethernet header."""

    sock: socket.socket
    memory: mmap.mmap
    blocks: int
    current: int = 0
    names: dict[int, str] = field(default_factory=dict)

    def fileno(self) -> int:
        return self.sock.fileno()

    def new(self) -> Iterator[Frame]:
        """Frames of the blocks that are ours, in order. Give the kernel its blocks back soon: it drops what finds none."""
        memory = self.memory
        for _ in range(self.blocks):
            start = self.current * BLOCK_BYTES
            status, packets, offset = _BLOCK.unpack_from(memory, start + 8)
            if not status & _USER:
                return
            at = start + offset
            for _ in range(packets):
                following, seconds, nanoseconds, kept, length, _, mac, _, index, kind = _PACKET.unpack_from(memory, at)
                data = memory[at + mac : at + mac + kept]
                yield Frame(seconds * 1_000_000_000 + nanoseconds, self.names.get(index) or self._name(index), kind, data, length)
                at += following
            _STATUS.pack_into(memory, start + 8, _KERNEL)
            self.current = (self.current + 1) % self.blocks

    def _name(self, index: int) -> str:
        """The interface's name, asked of the socket's own namespace."""
        name = f"if{index}"
        with contextlib.suppress(OSError):  # it has gone already
            answer = fcntl.ioctl(self.sock, _SIOCGIFNAME, struct.pack("=16si20x", b"", index))
            name = answer[:16].split(b"\0", 1)[0].decode()
        self.names[index] = name
        return name

    def drops(self) -> int:
        """Packets lost since the last call because all blocks were full."""
        _, drops, _ = struct.unpack("=III", self.sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12))
        return int(drops)

    def close(self) -> None:
        self.memory.close()
        self.sock.close()


def size_of_each(rings: int) -> int:
    """Bytes of each ring where so many are open at once: whole blocks, two at least."""
    return max(2 * BLOCK_BYTES, min(MOST_BYTES, ALL_BYTES // max(1, rings)) // BLOCK_BYTES * BLOCK_BYTES)


def ring(program: Sequence[Instruction], size_bytes: int, keep_bytes: int) -> Ring:
    """A ring of this namespace's interfaces, smaller where the kernel has no memory for so much.

    Raises: KernelError without memory for the smallest or without rings; MachineError where packet sockets are not allowed.
    """
    sock = packet_socket()
    try:
        sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        attach_filter(sock, cut(program, keep_bytes))
        size = _make_ring(sock, size_bytes)
        memory = mmap.mmap(sock.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        bind_everywhere(sock)
    except OSError as error:
        sock.close()
        raise KernelError(f"cannot open a packet ring: {error.strerror}") from error
    return Ring(sock, memory, size // BLOCK_BYTES)


def _make_ring(sock: socket.socket, size_bytes: int) -> int:
    while True:
        blocks = max(2, size_bytes // BLOCK_BYTES)
        frame_bytes = 2048  # counts for nothing in version 3, but is checked
        request = struct.pack("=7I", BLOCK_BYTES, blocks, frame_bytes, blocks * (BLOCK_BYTES // frame_bytes), RETIRE_MS, 0, 0)
        try:
            sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        except OSError as error:
            if error.errno != errno.ENOMEM or blocks <= 2:
                raise
            size_bytes = blocks // 2 * BLOCK_BYTES
            continue
        return blocks * BLOCK_BYTES


def cut(program: Sequence[Instruction], keep_bytes: int) -> tuple[Instruction, ...]:
    """The filter, accepting no more than so many bytes of each packet: a ring takes the length from there."""
    returns = 0x06
    return tuple((code, true, false, min(k, keep_bytes) if code == returns else k) for code, true, false, k in program)
