"""Packet sockets: what passes a namespace's interfaces (Tap), what its IP stack accepts (Delivered), packets of our own making.

Decides how the kernel is asked. Refuses to know what the packets mean. Everything is opened in the namespace that the calling
thread is in: use it under `namespaces.entered`.

A Tap is a packet socket on every interface of the namespace, both directions, from the IP header on. Opening one costs 10 us, but
closing one waits for an RCU grace period (packet_release calls synchronize_net: 8 to 24 ms measured, idle): taps are opened only
where they are needed, closed side by side, and never kept, because a process that holds many takes as long to die. A Delivered is
a raw IP socket and has no such cost: it gets a copy of what passed PREROUTING, routing and INPUT, addressed to this namespace,
after every rewrite, on whatever interface it came, loopback included - what a server there would see. A raw IPv6 socket gives
no IP header (RFC 3542): a Delivered of IPv6 puts a plain one together from the packet's addresses.
"""

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from netlab.errors import KernelError, MachineError

Instruction = tuple[int, int, int, int]
"""One classic-BPF instruction: code, jump if true, jump if false, constant."""

ETH_P_ALL = 3
OUTGOING = 4
"""sll_pkttype of a packet that leaves through the interface; every other value is one that came in."""

_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE, SO_TIMESTAMPNS, _SO_MEMINFO = 26, 33, 35, 55
_CLOSERS = 32
_HEADER_V6 = struct.Struct("!IHBB16s16s")


class Frame(NamedTuple):
    """One packet at one interface, at a time in nanoseconds since 1970. `data` is cut at the tap's `keep_bytes`."""

    time_ns: int
    device: str
    pkttype: int
    data: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Program:
    """A filter as the kernel reads it: `request` (struct sock_fprog) points into `code`, which lives as long as this does."""

    code: "ctypes.Array[ctypes.c_char]"
    request: bytes


def program(instructions: Sequence[Instruction]) -> Program:
    """A filter to be attached to many sockets."""
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    buffer = ctypes.create_string_buffer(code, len(code))
    return Program(buffer, struct.pack("HL", len(instructions), ctypes.addressof(buffer)))


def attach(sock: socket.socket, filter_: Program) -> None:
    """Let the kernel drop what the program does not accept, in the place of the one that was attached."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_.request)


def attach_filter(sock: socket.socket, instructions: Sequence[Instruction]) -> None:
    """The same for one socket alone."""
    attach(sock, program(instructions))


@dataclass(slots=True)
class Tap:
    """What passes every interface of one namespace."""

    sock: socket.socket
    keep_bytes: int

    def fileno(self) -> int:
        return self.sock.fileno()

    def new(self, maximum: int = 1 << 20) -> Iterator[Frame]:
        """Frames that are waiting, in order."""
        buffer = bytearray(self.keep_bytes)
        for _ in range(maximum):
            try:
                length, ancillary, _, address = self.sock.recvmsg_into([buffer], 64, socket.MSG_DONTWAIT | socket.MSG_TRUNC)
            except BlockingIOError:
                return
            except OSError as error:  # an interface went down or away: the others go on
                if error.errno in (errno.ENETDOWN, errno.ENXIO):
                    continue
                raise
            seconds, nanoseconds = struct.unpack("=qq", ancillary[0][2]) if ancillary else (0, 0)
            yield Frame(seconds * 1_000_000_000 + nanoseconds, address[0], address[2], bytes(buffer[:length]), length)

    def drops(self) -> int:
        """Packets lost since the last call because the socket's buffer was full."""
        _, drops = struct.unpack("=II", self.sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        return int(drops)

    def close(self) -> None:
        self.sock.close()


def tap(instructions: Sequence[Instruction], keep_bytes: int = 192, link_layer: bool = False) -> Tap:
    """A tap of this namespace's interfaces, present and future. `link_layer`: frames with their Ethernet header."""
    sock = _socket(socket.AF_PACKET, socket.SOCK_RAW if link_layer else socket.SOCK_DGRAM, 0)
    try:
        _enlarge(sock)
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        attach_filter(sock, instructions)
        bind_everywhere(sock)
    except OSError as error:
        close_taps((Tap(sock, 0),))
        raise KernelError(f"cannot open a packet socket: {error.strerror}") from error
    return Tap(sock, keep_bytes)


def packet_socket() -> socket.socket:
    """A packet socket that sees nothing yet, for frames with their Ethernet header."""
    return _socket(socket.AF_PACKET, socket.SOCK_RAW, 0)


def stamped_time() -> socket.socket:
    """Keep this open to have packets stamped when they arrive: until some socket asked for stamps a while ago, a frame gets the
    time at which it was read (net_enable_timestamp works through a work queue), and hops cannot be put in order.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    return sock


class Closable(Protocol):
    """A Tap or a packet ring."""

    def close(self) -> None: ...


def close_taps(taps: Sequence[Closable]) -> None:
    """Close them side by side: each waits for an RCU grace period, which all can share."""
    if len(taps) <= 1:
        for one in taps:
            one.close()
        return
    threads = [threading.Thread(target=_close_some, args=(taps[start::_CLOSERS],)) for start in range(min(_CLOSERS, len(taps)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _close_some(taps: Sequence[Closable]) -> None:
    for one in taps:
        one.close()


def bind_everywhere(sock: socket.socket) -> None:
    """bind() to all interfaces, which Python's own bind cannot say (it wants a name)."""
    address = struct.pack("=HHiHBB8s", socket.AF_PACKET, socket.htons(ETH_P_ALL), 0, 0, 0, 0, b"")
    if ctypes.CDLL(None, use_errno=True).bind(sock.fileno(), address, len(address)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enlarge(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
    except PermissionError:  # not root of the machine: up to net.core.rmem_max
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)


@dataclass(slots=True)
class Delivered:
    """Packets of one IP protocol that this namespace's own stack accepted."""

    sock: socket.socket
    protocol: int
    version: int = 4
    missed: int = 0
    """Packets lost before they were of interest."""

    def fileno(self) -> int:
        return self.sock.fileno()

    def new(self, maximum: int = 1 << 20) -> Iterator[bytes]:
        """Packets that are waiting, each from its IP header on."""
        take = self._take if self.version == 4 else self._take_v6
        for _ in range(maximum):
            try:
                yield take()
            except BlockingIOError:
                return

    def _take(self) -> bytes:
        return self.sock.recv(2048, socket.MSG_DONTWAIT)

    def _take_v6(self) -> bytes:
        data, ancillary, _, address = self.sock.recvmsg(2048, 64, socket.MSG_DONTWAIT)
        source = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
        destination = next((info[:16] for _, kind, info in ancillary if kind == socket.IPV6_PKTINFO), bytes(16))
        return _HEADER_V6.pack(0x60000000, len(data), self.protocol, 64, source, destination) + data

    def drops(self) -> int:
        """Packets lost since `forget_drops` because the socket's buffer was full (SK_MEMINFO_DROPS)."""
        return self._lost() - self.missed

    def forget_drops(self) -> None:
        self.missed = self._lost()

    def _lost(self) -> int:
        return int(struct.unpack("=9I", self.sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36))[8])

    def close(self) -> None:
        self.sock.close()


def delivered(protocol: int, filter_: Program, version: int = 4) -> Delivered:
    """What this namespace receives of an IP protocol (6, 17, 132, 1 or 58), filtered; the receive buffer as large as may be."""
    sock = _socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, protocol)
    if version == 6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    attach(sock, filter_)
    _enlarge(sock)
    watcher = Delivered(sock, protocol, version)
    for _ in watcher.new():
        pass  # what came before the filter was attached
    return watcher


def injector(version: int = 4) -> socket.socket:
    """A raw socket whose packets bring their own IP header and meet this namespace's OUTPUT hooks and routes."""
    return _socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _socket(family: int, kind: int, protocol: int) -> socket.socket:
    try:
        return socket.socket(family, kind, protocol)
    except PermissionError:
        raise MachineError("raw sockets are not allowed here: run inside the lab's user namespace, or as root") from None
    except OSError as error:
        raise KernelError(f"cannot open a raw socket: {error.strerror}") from error
