"""Time stamps of packets: that the kernel makes them, and the order of sightings that they give."""

import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from netlab.kernel import packet_sockets
from netlab.kernel.namespaces import entered
from netlab.probes.witnessed import Sighting


def order(one: Sighting, other: Sighting) -> int:
    """By time; where one packet has one stamp at several interfaces: in by the port, then the bridge, out by the bridge, then the
    port; out of one namespace before into the next."""
    if one.at != other.at:
        return -1 if one.at < other.at else 1
    if one.netns != other.netns:
        return (not one.leaving) - (not other.leaving)
    return _rank(one) - _rank(other)


def _rank(one: Sighting) -> int:
    return (3 if one.port else 2) if one.leaving else (0 if one.port else 1)


@contextmanager
def switched_on(fd: int) -> Iterator[None]:
    """Inside, packets are stamped when they arrive, not when they are read: asked for, and proved with a datagram to itself.

    The kernel switches stamping on through a work queue (net_enable_timestamp), so that the first ones may come too late.
    """
    with entered(fd):
        holding = packet_sockets.stamped_time()
        own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with holding, own:
        own.setsockopt(socket.SOL_SOCKET, packet_sockets.SO_TIMESTAMPNS, 1)
        with suppress(OSError):
            own.bind(("127.0.0.1", 0))
            own.settimeout(0.05)
            for _ in range(50):
                own.sendto(b"", own.getsockname())
                sent = time.time_ns()
                select.select([], [], [], 0.0005)
                _, ancillary, _, _ = own.recvmsg(16, 64)
                if ancillary and _nanoseconds(ancillary[0][2]) <= sent:
                    break
        yield


def _nanoseconds(data: bytes) -> int:
    seconds, nanoseconds = struct.unpack("=qq", data[:16])
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
