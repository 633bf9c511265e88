"""The router's address translation before a network (`networks.NAME.nat`), whatever the routing.

Decides the rules of its table `netlab-nat`: port forwards, masquerade of what leaves the network and, if asked for, of what comes
in, and that nothing else that is new gets in. As libvirt and other virtual-machine hosts do it, but that what does not get in is
dropped in silence. Refuses to know who sends what.
"""

from collections.abc import Iterator

from netlab import ipam
from netlab.model import Address, Cluster, Lan, Nat, NatForward, Network
from netlab.ops import Op, Ruleset
from netlab.ruleset import (
    Base,
    Chain,
    CtDnat,
    CtState,
    Destination,
    DestinationPort,
    Dnat,
    Drop,
    Family,
    Hook,
    L4Proto,
    Masquerade,
    Rule,
    Source,
    Table,
)
from netlab.ruleset import Ruleset as RulesetValue

ROUTER, TABLE = "router/router", "netlab-nat"
_FAMILIES: tuple[tuple[Family, int], ...] = (("ip", 4), ("ip6", 6))
_DSTNAT, _FILTER, _SRCNAT = -100, 0, 100


def plan(cluster: Cluster) -> Iterator[Op]:
    """Nothing where no network asks for it."""
    lans = cluster.topology.networks
    if any(lan.nat is not None for lan in lans):
        tables = (_table(lans, family, version) for family, version in _FAMILIES)
        yield Ruleset(ROUTER, RulesetValue("nftables", tuple(table for table in tables if table is not None)))


def _table(lans: tuple[Lan, ...], family: Family, version: int) -> Table | None:
    there: list[Rule] = []
    kept_out: list[Rule] = []
    back: list[Rule] = []
    for lan in lans:
        inside = tuple(cidr for cidr in lan.cidrs if cidr.version == version)
        if lan.nat is None or not inside:
            continue
        outside = tuple(
            router for other in lans if other.name != lan.name for router in other.routers if router.version == version
        )
        there += (_forward(one, inside, outside) for one in lan.nat.forwards if one.address.version == version and outside)
        if not lan.nat.routed:
            kept_out.append(_keep_out(lan, inside))
        back += _masquerades(lan.nat, lan.name, inside)
    if not back:
        return None
    chains = (
        Chain("prerouting", tuple(there), Base(Hook.PREROUTING, "nat", _DSTNAT)),
        Chain("forward", tuple(kept_out), Base(Hook.FORWARD, "filter", _FILTER)),
        Chain("postrouting", tuple(back), Base(Hook.POSTROUTING, "nat", _SRCNAT)),
    )
    return Table(family, TABLE, chains)


def _forward(one: NatForward, inside: tuple[Network, ...], outside: tuple[Address, ...]) -> Rule:
    """At the router's addresses elsewhere; from inside they are the router's own, or an answer would miss it."""
    at = Destination(tuple(ipam.host_route(address) for address in outside))
    matches = (at, Source(inside, negate=True), L4Proto(one.protocol), DestinationPort(one.port))
    return Rule(matches, (Dnat(one.address, one.target_port),), f"forwarded port {one.port}/{one.protocol.lower()}")


def _keep_out(lan: Lan, inside: tuple[Network, ...]) -> Rule:
    matches = (Destination(inside), Source(inside, negate=True), CtState(("new",)), CtDnat(negate=True))
    return Rule(matches, (Drop(),), f"nobody elsewhere reaches {lan.name} but by a forwarded port")


def _masquerades(nat: Nat, name: str, inside: tuple[Network, ...]) -> Iterator[Rule]:
    yield Rule((Source(inside), Destination(inside, negate=True)), (Masquerade(),), f"what leaves {name}")
    if nat.hide_clients:
        yield Rule((Destination(inside), Source(inside, negate=True)), (Masquerade(),), f"what comes into {name}")
