"""A packet inside another: VXLAN frames that carry the one that is followed, and how they are known. Pure.

Decides where the carried packet begins, and how the kernel is asked to trace what carries it. RFC 7348, section 5: behind the UDP
header eight bytes of VXLAN, then an Ethernet header.
"""

from netlab.model import Protocol
from netlab.probes import packets
from netlab.probes.live import UDP

CARRIED = "carried-"
"""Before the part (request, reply) of rules that what carries the packet met."""
_AHEAD = 8 + 8 + 14
_TOKENS = {Protocol.TCP: ((4, 16), (8, 16)), Protocol.SCTP: ((16, 16), (4, 16))}
"""Where the run's number stands behind the carried IP header: (byte, bits) of the request, of the answer."""


def carried(data: bytes, port: int) -> bytes | None:
    """What a UDP datagram to the tunnels' port carries, from its IP header on; None for everything else."""
    if len(data) < 48 or data[0] >> 4 not in (4, 6):
        return None
    ip = packets.header(data)
    at = ip.length + _AHEAD
    if ip.protocol != UDP or int.from_bytes(data[ip.length + 2 : ip.length + 4]) != port or len(data) < at + 28:
        return None
    return data[at:] if data[at] >> 4 in (4, 6) else None


def matches(protocol: Protocol, run: int, port: int, version: int) -> list[str]:
    """nft matches of what carries the packet and its answers; [] where their token stands too deep for a short match."""
    inside = (_AHEAD + (20 if version == 4 else 40)) * 8
    return [f"udp dport {port} @th,{inside + at * 8},{bits} {run}" for at, bits in _TOKENS.get(protocol, ())]
