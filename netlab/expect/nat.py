"""What a router with address translation before a network does with a packet. It refuses to know rules.

A port of the router's address elsewhere may lead into the network; what leaves the network gets the router's address where it
goes out; nothing else that is new gets in, unless the network says that it may.
"""

from dataclasses import replace

from netlab.expect.places import ROUTER, Hop, Lab, next_place
from netlab.expect.policy import Packet
from netlab.model import Address, Lan


def translated(lab: Lab, packet: Packet) -> Packet | str:
    """The packet as it leaves the router; or why it does not."""
    lans = lab.cluster.topology.networks
    forwarded = _forwarded(lab, packet)
    out = forwarded or packet
    for lan in lans:
        if lan.nat is None or (packet.source in lan) == (out.destination in lan):
            continue
        coming = out.destination in lan
        if coming and forwarded is None and not lan.nat.routed:
            return f"the router lets nobody elsewhere into {lan.name} but by a forwarded port"
        if not coming or lan.nat.hide_clients:
            source = _own(lab, out)
            out = replace(out, source=source) if source is not None else out
            break
    return out


def _forwarded(lab: Lab, packet: Packet) -> Packet | None:
    for lan in lab.cluster.topology.networks:
        for one in lan.nat.forwards if lan.nat is not None and packet.source not in lan else ():
            if (one.port, one.protocol) == (packet.port, packet.protocol) and _listens(lab, lan, packet.destination, one.address):
                return replace(packet, destination=one.address, port=one.target_port)
    return None


def _listens(lab: Lab, lan: Lan, address: Address, target: Address) -> bool:
    elsewhere = (router for other in lab.cluster.topology.networks if other.name != lan.name for router in other.routers)
    return address in elsewhere and address.version == target.version


def _own(lab: Lab, packet: Packet) -> Address | None:
    """The router's address on the way to the packet's destination; None where there is no way."""
    hop = next_place(lab, ROUTER, packet.destination)
    return hop.source if isinstance(hop, Hop) else None


def translates(lab: Lab) -> bool:
    return any(lan.nat is not None for lan in lab.cluster.topology.networks)
