"""Reading one namespace back: links, addresses, routes, neighbours, conntrack and rules, as plain values with `ip -j`'s names.

Runs in a worker, never in the holder. Decides only words; what they mean is for verify.py and for people.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from ipaddress import IPv4Network
from typing import Any

from netlab.errors import InputError, KernelError
from netlab.kernel import conntrack, listing, qdisc, rule_listing
from netlab.kernel.namespaces import entered
from netlab.kernel.netlink import Socket
from netlab.kernel.rule_texts import Netns
from netlab.kernel.rules import opened
from netlab.model import Network

KINDS = ("links", "addresses", "routes", "neighbours", "conntrack", "rules")
_FLAGS = (
    (3, "LOOPBACK"), (1, "BROADCAST"), (4, "POINTOPOINT"), (12, "MULTICAST"), (7, "NOARP"), (9, "ALLMULTI"), (8, "PROMISC"),
    (0, "UP"), (16, "LOWER_UP"),
)  # fmt: skip
_UP, _RUNNING = 1, 0x40
_OPERSTATES = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
_SCOPES = {0: "global", 200: "site", 253: "link", 254: "host", 255: "nowhere"}
_TYPES = {
    1: "unicast", 2: "local", 3: "broadcast", 4: "anycast", 5: "multicast", 6: "blackhole", 7: "unreachable", 8: "prohibit",
}  # fmt: skip
_PROTOCOLS = {1: "redirect", 2: "kernel", 4: "static", 9: "ra", 12: "bird", 16: "dhcp", 186: "bgp", 188: "ospf"}
_STATES = {0x01: "INCOMPLETE", 0x02: "REACHABLE", 0x04: "STALE", 0x08: "DELAY", 0x10: "PROBE", 0x20: "FAILED", 0x80: "PERMANENT"}
_PERMANENT_FLAG, _TENTATIVE, _NOPREFIXROUTE = 0x80, 0x40, 0x200

Row = dict[str, Any]


def read(netns: Netns, what: str, peers: Mapping[str, tuple[Netns, str]] | None = None) -> Any:
    """What the kernel says about the namespace. `peers`, the far ends of its links, impair what it gets.

    Raises InputError where `what` is none of KINDS, or KernelError.
    """
    if what not in KINDS:
        raise InputError(f"cannot read {what!r}: there is {', '.join(KINDS)}")
    with opened(netns) as fd:
        try:
            if what == "rules":
                return rule_listing.text(fd)
            return _conntrack(fd) if what == "conntrack" else _rows(fd, what, peers or {})
        except OSError as error:
            raise KernelError(f"cannot list {what}: {error.strerror or error}") from None


def _conntrack(fd: int) -> list[Row]:
    with entered(fd):
        table = conntrack.Table()
    with table:
        return [conntrack.as_json(entry) for entry in table.entries() if not conntrack.is_own_test(entry)]


def _rows(fd: int, what: str, peers: Mapping[str, tuple[Netns, str]]) -> list[Row]:
    with ExitStack() as stack:
        with entered(fd):
            sock = stack.enter_context(Socket())
        links = {link.ifindex: link for link in listing.links(sock)}
        match what:
            case "links":
                own = {links[index].name: shaped for index, shaped in qdisc.shaped(sock).items() if index in links}
                far = _far_ends(peers)
                return [{**link_row(link, links), **_impaired(own.get(link.name), far.get(link.name))} for link in links.values()]
            case "addresses":
                addresses = listing.addresses(sock)
                return [
                    {**link_row(link, links), "addr_info": [_address(one) for one in addresses if one.ifindex == link.ifindex]}
                    for link in links.values()
                ]
            case "routes":
                return [row for route in listing.routes(sock) for row in [route_row(route, links)]]
            case _:
                return [neighbour_row(one, links) for one in listing.neighbours(sock)]


def _far_ends(peers: Mapping[str, tuple[Netns, str]]) -> dict[str, qdisc.Shaped]:
    """Device -> what the far end of its link does to what it sends."""
    found = {}
    for device, (netns, peer) in peers.items():
        with ExitStack() as stack:
            with opened(netns) as fd, entered(fd):
                sock = stack.enter_context(Socket())
            shaped = qdisc.shaped(sock)
            links = listing.links(sock)
        index = next((link.ifindex for link in links if link.name == peer), 0)
        if index in shaped:
            found[device] = shaped[index]
    return found


def _impaired(out: qdisc.Shaped | None, into: qdisc.Shaped | None) -> Row:
    """`impairment`: what becomes of what the device sends (out) and gets (in), shares of 1, seconds, bits a second."""
    ways = {way: _shaping(shaped) for way, shaped in (("out", out), ("in", into)) if shaped is not None}
    return {"impairment": ways} if ways else {}


def _shaping(shaped: qdisc.Shaped) -> Row:
    given = {name: value for name, value in asdict(shaped.value).items() if value}
    return {"qdisc": shaped.foreign, **given} if shaped.foreign else given


Links = Mapping[int, listing.Link]


def name_of(index: int, links: Links) -> str:
    return links[index].name if index in links else f"if{index}"


def link_row(link: listing.Link, links: Links) -> Row:
    row: Row = {"ifindex": link.ifindex, "ifname": link.name}
    if link.link and link.netnsid is not None:
        row["link_index"], row["link_netnsid"] = link.link, link.netnsid
    elif link.link:
        row["link"] = name_of(link.link, links)
    row["flags"] = ["NO-CARRIER"] if link.flags & _UP and not link.flags & _RUNNING else []
    row["flags"] += [name for bit, name in _FLAGS if link.flags >> bit & 1]
    row["mtu"] = link.mtu_bytes
    if link.master:
        row["master"] = name_of(link.master, links)
    row["operstate"] = _OPERSTATES[link.operstate] if link.operstate < len(_OPERSTATES) else str(link.operstate)
    row["address"] = link.mac
    if link.kind:
        row["linkinfo"] = {"info_kind": link.kind}
    if link.altnames:
        row["altnames"] = list(link.altnames)
    return row


def _address(one: listing.DeviceAddress) -> Row:
    row: Row = {"family": "inet" if one.address.version == 4 else "inet6", "local": str(one.address), "prefixlen": one.prefixlen}
    if one.broadcast:
        row["broadcast"] = one.broadcast
    row["scope"] = _SCOPES.get(one.scope, str(one.scope))
    for flag, word in ((_NOPREFIXROUTE, "noprefixroute"), (_TENTATIVE, "tentative")):
        if one.flags & flag:
            row[word] = True
    if not one.flags & _PERMANENT_FLAG:
        row["dynamic"] = True
    if one.label:
        row["label"] = one.label
    return row


def route_row(route: listing.Route, links: Links) -> Row:
    row: Row = {} if route.type == 1 else {"type": _TYPES.get(route.type, str(route.type))}
    row["dst"] = destination(route.destination)
    hops = [_hop(hop, links) for hop in route.hops]
    if len(hops) == 1:
        flags = hops[0].pop("flags")
        row.update(hops[0] if route.type == 1 else {})
    else:
        flags, row["nexthops"] = [], hops
    if route.protocol != 3:  # boot: whoever made it said nothing
        row["protocol"] = _PROTOCOLS.get(route.protocol, str(route.protocol))
    if route.scope:
        row["scope"] = _SCOPES.get(route.scope, str(route.scope))
    if route.source is not None:
        row["prefsrc"] = str(route.source)
    if route.metric:
        row["metric"] = route.metric
    return {**row, "flags": flags}


def destination(network: Network) -> str:
    """As ip(8) prints it: `default`, and a host without its /32."""
    if network.prefixlen == 0:
        return "default"
    full = 32 if isinstance(network, IPv4Network) else 128
    return str(network.network_address) if network.prefixlen == full else str(network)


def _hop(hop: tuple[Any, int, int], links: Links) -> Row:
    gateway, index, flags = hop
    row: Row = {"gateway": str(gateway)} if gateway is not None else {}
    if index:
        row["dev"] = name_of(index, links)
    row["flags"] = [word for bit, word in ((1, "dead"), (4, "onlink"), (16, "linkdown")) if flags & bit]
    return row


def neighbour_row(one: listing.Neighbour, links: Links) -> Row:
    row: Row = {"dst": str(one.address), "dev": name_of(one.ifindex, links)}
    if one.mac:
        row["lladdr"] = one.mac
    return {**row, "state": [word for bit, word in _STATES.items() if one.state & bit]}
