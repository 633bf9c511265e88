"""Mode `iptables`: the chains that kube-proxy's iptables back end makes on a node, with its names, order and comments.

Decides the chains that every node has and puts the services' rules into them; what one service needs is in iptables_service.py.
Refuses to know how rules are written (rendering/iptables.py). Source: kubernetes pkg/proxy/iptables/proxier.go, v1.36.

Theory. nat: PREROUTING and OUTPUT go through KUBE-SERVICES, one rule a frontend address; its last rule sends what is addressed
to the node itself to KUBE-NODEPORTS. From there KUBE-EXT-* (external traffic) and KUBE-SVC-* / KUBE-SVL-* (Cluster / Local
policy) lead to one KUBE-SEP-* an endpoint, which rewrites. KUBE-POSTROUTING masquerades what KUBE-MARK-MASQ has marked.
filter: what was not rewritten meets KUBE-SERVICES, KUBE-EXTERNAL-SERVICES (reject or drop) and KUBE-PROXY-FIREWALL.

Not made: the canary chains (nothing flushes our rules behind our back) and the nfacct counters (metrics only). Among very many
endpoints a real node's rules depend on its past: chains of Services that did not change keep the comments that they had before
the threshold was crossed, and chains of endpoints that are gone wait up to syncPeriod to be deleted. A plan has no past: here all
comments come and go at once, and so do the chains. No packet can tell.
"""

from collections.abc import Callable
from functools import lru_cache
from itertools import chain

from netlab.model import Cluster, Node
from netlab.ops import Op, Ruleset, Sysctl
from netlab.proxy.iptables_service import ServiceRules, host, service_rules
from netlab.proxy.port_blocks import PortBlock, blocks_of
from netlab.proxy.service_ports import choose_at, families
from netlab.proxy.settings import MASQUERADE_MARK, Settings, View, localhost, settings, view
from netlab.ruleset import (
    Accept,
    Base,
    Chain,
    CtState,
    Destination,
    DestinationLocal,
    Drop,
    Family,
    Hook,
    Jump,
    MarkSet,
    Masquerade,
    Match,
    OrMark,
    Return,
    Rule,
    Source,
    Table,
    XorMark,
)
from netlab.ruleset import Ruleset as RulesetValue

NAME = "iptables"

LAST = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"
NEW = (CtState(("new",)),)
LARGE_CLUSTER_ENDPOINTS = 1000
"""With more endpoints than these of one family, usable or not, of all ports of all Services together, their rules have no
comments (upstream's `largeClusterEndpointsThreshold`)."""


def plan(cluster: Cluster, node: Node) -> tuple[Op, ...]:
    """The node's Ruleset (tables filter and nat of each family) and the sysctl that localhost NodePorts need."""
    netns = f"node/{node.meta.name}"
    backend = cluster.topology.cluster.proxy.backend
    tables = tuple(table for family in families(cluster) for table in _tables(cluster, node, family))
    localhost = _localhost_node_ports(cluster, settings(cluster, node, "ip", primary_by_default=False))
    # Without route_localnet the kernel drops 127.0.0.1 on its way to a pod as a martian; it is never left as it was inherited.
    localnet = Sysctl(netns, "net/ipv4/conf/all/route_localnet", "1" if localhost else "0")
    return (localnet, Ruleset(netns, RulesetValue("iptables", tables, backend)))


def _localhost_node_ports(cluster: Cluster, set_: Settings) -> bool:
    """127.0.0.1:nodePort works: IPv4 only, and only if nodePortAddresses does not leave loopback out."""
    return set_.family == "ip" and cluster.topology.cluster.proxy.localhost_node_ports and set_.loopback


def _tables(cluster: Cluster, node: Node, family: Family) -> tuple[Table, ...]:
    set_ = settings(cluster, node, family, primary_by_default=False)
    localhost_ok = _localhost_node_ports(cluster, set_)
    blocks = blocks_of(cluster).by_family[family]
    large = sum(block.endpoints for block in blocks) > LARGE_CLUSTER_ENDPOINTS
    services = list(chain.from_iterable(map(_rules_for(view(node, set_), large), blocks)))
    liberal = cluster.topology.cluster.proxy.conntrack_tcp_be_liberal
    return (_filter(family, services, localhost_ok, liberal), _nat(family, services, set_, localhost_ok))


@lru_cache(maxsize=64)
def _rules_for(seen: View, large: bool) -> Callable[[PortBlock], tuple[ServiceRules, ...]]:
    """The rules of a block's ports on a node that has this view. Asked again for the same block, they are at hand."""

    def rules(block: PortBlock) -> tuple[ServiceRules, ...]:
        chosen = ((port.front, choose_at(port, seen.node, seen.zone)[0]) for port in block.ports)
        return tuple(service_rules(front, one, seen.policy, seen.allowed(front.source_ranges), large) for front, one in chosen)

    return lru_cache(maxsize=1 << 12)(rules)


def _filter(family: Family, services: list[ServiceRules], localhost_ok: bool, liberal: bool) -> Table:
    services_jump = Rule(NEW, (Jump("KUBE-SERVICES"),), "kubernetes service portals")
    external_jump = Rule(NEW, (Jump("KUBE-EXTERNAL-SERVICES"),), "kubernetes externally-visible service portals")
    firewall_jump = Rule(NEW, (Jump("KUBE-PROXY-FIREWALL"),), "kubernetes load balancer firewall")
    node_ports_jump = Rule((), (Jump("KUBE-NODEPORTS"),), "kubernetes health check service ports")
    forward_jump = Rule((), (Jump("KUBE-FORWARD"),), "kubernetes forwarding rules")
    # The kubelet's jump was there first, and kube-proxy puts each of its own in front: hence this order.
    martian_jump = Rule((), (Jump("KUBE-FIREWALL"),))
    return Table(
        family,
        "filter",
        (
            Chain("INPUT", (firewall_jump, node_ports_jump, external_jump, martian_jump), Base(Hook.INPUT, "filter", 0)),
            Chain("FORWARD", (firewall_jump, forward_jump, services_jump, external_jump), Base(Hook.FORWARD, "filter", 0)),
            Chain("OUTPUT", (firewall_jump, services_jump, martian_jump), Base(Hook.OUTPUT, "filter", 0)),
            Chain("KUBE-SERVICES", tuple(rule for service in services for rule in service.filter_services)),
            Chain("KUBE-EXTERNAL-SERVICES", tuple(rule for service in services for rule in service.filter_external)),
            Chain("KUBE-NODEPORTS", tuple(rule for service in services for rule in service.filter_node_ports)),
            Chain("KUBE-PROXY-FIREWALL", tuple(rule for service in services for rule in service.filter_firewall)),
            Chain("KUBE-FORWARD", _forward_rules(liberal)),
            Chain("KUBE-FIREWALL", _martian_rules(family) if localhost_ok else ()),
        ),
    )


def _forward_rules(liberal: bool) -> tuple[Rule, ...]:
    # kubernetes/kubernetes#74839: a packet that conntrack calls invalid is not un-DNATed, and resets the connection.
    invalid = () if liberal else (Rule((CtState(("invalid",)),), (Drop(),)),)
    return (
        *invalid,
        Rule((MarkSet(MASQUERADE_MARK),), (Accept(),), "kubernetes forwarding rules"),
        Rule((CtState(("related", "established")),), (Accept(),), "kubernetes forwarding conntrack rule"),
    )


def _martian_rules(family: Family) -> tuple[Rule, ...]:
    """Closes the hole that route_localnet opens to neighbours on the LAN: kubernetes/kubernetes#90259."""
    loopback = (localhost(family),)
    known = CtState(("related", "established", "dnat"), negate=True)
    matches: tuple[Match, ...] = (Source(loopback, negate=True), Destination(loopback), known)
    return (Rule(matches, (Drop(),), "block incoming localnet connections"),)


def _nat(family: Family, services: list[ServiceRules], set_: Settings, localhost_ok: bool) -> Table:
    services_jump = (Rule((), (Jump("KUBE-SERVICES"),), "kubernetes service portals"),)
    postrouting_jump = (Rule((), (Jump("KUBE-POSTROUTING"),), "kubernetes postrouting rules"),)
    dispatch = tuple(rule for service in services for rule in service.nat_services)
    return Table(
        family,
        "nat",
        (
            Chain("PREROUTING", services_jump, Base(Hook.PREROUTING, "nat", -100)),
            Chain("INPUT", (), Base(Hook.INPUT, "nat", 100)),
            Chain("OUTPUT", services_jump, Base(Hook.OUTPUT, "nat", -100)),
            Chain("POSTROUTING", postrouting_jump, Base(Hook.POSTROUTING, "nat", 100)),
            Chain("KUBE-SERVICES", dispatch + _node_port_rules(set_, localhost_ok)),
            Chain("KUBE-NODEPORTS", tuple(rule for service in services for rule in service.nat_node_ports)),
            Chain(
                "KUBE-POSTROUTING",
                (
                    Rule((MarkSet(MASQUERADE_MARK, negate=True),), (Return(),)),
                    # The mark goes, so that a packet that passes the stack again is not masqueraded again.
                    Rule((), (XorMark(MASQUERADE_MARK),)),
                    Rule((), (Masquerade(),), "kubernetes service traffic requiring SNAT"),
                ),
            ),
            Chain("KUBE-MARK-MASQ", (Rule((), (OrMark(MASQUERADE_MARK),)),)),
            *(chain for service in services for chain in service.chains),
        ),
    )


def _node_port_rules(set_: Settings, localhost_ok: bool) -> tuple[Rule, ...]:
    """The tail of KUBE-SERVICES: which addresses take NodePort traffic."""
    jump = (Jump("KUBE-NODEPORTS"),)
    if set_.node_port_addresses is None:
        block = () if localhost_ok else (set_.not_localhost,)
        return (Rule((DestinationLocal(), *block), jump, LAST),)
    usable = (address for address in set_.node_port_addresses if localhost_ok or not address.is_loopback)
    return tuple(Rule((Destination((host(address),)),), jump, LAST) for address in usable)
