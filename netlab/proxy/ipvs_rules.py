"""The iptables rules of mode `ipvs`: their number does not grow with Services, because they ask the sets of ipvs_sets.py.

Decides chains, order and comments. A rule that asks an empty set is left out where kube-proxy leaves it out.
Source: kubernetes pkg/proxy/ipvs/proxier.go `writeIptablesRules` and its tables, v1.36.
"""

from collections.abc import Iterator, Sequence

from netlab.model import Protocol
from netlab.proxy.iptables_service import host
from netlab.proxy.ipvs_sets import TYPES, name_of
from netlab.proxy.service_ports import PortEndpoints
from netlab.proxy.settings import MASQUERADE_MARK, Settings, localhost
from netlab.ruleset import (
    Accept,
    Base,
    Chain,
    CtState,
    DestinationLocal,
    Drop,
    Family,
    Field,
    Hook,
    InSet,
    IpSet,
    IpSetType,
    Jump,
    L4Proto,
    MarkSet,
    Masquerade,
    Match,
    OfVirtualServer,
    OrMark,
    Reject,
    Return,
    Rule,
    Source,
    SourceLocal,
    Statement,
    Table,
    XorMark,
)

COMMENTS = {
    "LOOP-BACK": "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose",
    "CLUSTER-IP": "Kubernetes service cluster ip + port for masquerade purpose",
    "EXTERNAL-IP": "Kubernetes service external ip + port for masquerade and filter purpose",
    "EXTERNAL-IP-LOCAL": "Kubernetes service external ip + port with externalTrafficPolicy=local",
    "LOAD-BALANCER": "Kubernetes service lb portal",
    "LOAD-BALANCER-LOCAL": "Kubernetes service load balancer ip + port with externalTrafficPolicy=local",
    "LOAD-BALANCER-FW": "Kubernetes service load balancer ip + port for load balancer with sourceRange",
    "LOAD-BALANCER-SOURCE-IP": "Kubernetes service load balancer ip + port + source IP for packet filter purpose",
    "LOAD-BALANCER-SOURCE-CIDR": "Kubernetes service load balancer ip + port + source cidr for packet filter purpose",
    "NODE-PORT-TCP": "Kubernetes nodeport TCP port for masquerade purpose",
    "NODE-PORT-LOCAL-TCP": "Kubernetes nodeport TCP port with externalTrafficPolicy=local",
    "NODE-PORT-UDP": "Kubernetes nodeport UDP port for masquerade purpose",
    "NODE-PORT-LOCAL-UDP": "Kubernetes nodeport UDP port with externalTrafficPolicy=local",
    "NODE-PORT-SCTP-HASH": "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
    "NODE-PORT-LOCAL-SCTP-HASH": "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
    "HEALTH-CHECK-NODE-PORT": "Kubernetes health check node port",
}
_DESTINATION = (Field.DADDR, Field.L4PROTO, Field.DPORT)
_FIELDS: dict[IpSetType, tuple[Field, ...]] = {
    "hash:ip": (Field.DADDR,),
    "hash:ip,port": _DESTINATION,
    "hash:ip,port,ip": (*_DESTINATION, Field.SADDR),
    "hash:ip,port,net": (*_DESTINATION, Field.SADDR),
    "bitmap:port": (Field.DPORT,),
}
_FROM_ITS_OWN_ADDRESS = (Field.SADDR, Field.L4PROTO, Field.DPORT)
"""A process of the node that sends to a Service address has that very address as source, unless it chose another."""
MARK = (Jump("KUBE-MARK-MASQ"),)


def tables(family: Family, set_: Settings, ports: Sequence[PortEndpoints], sets: Sequence[IpSet]) -> tuple[Table, ...]:
    """Tables filter and nat of one family."""
    rules = _Rules(family, set_, {one.name for one in sets if one.elements})
    return (rules.filter(ports), rules.nat())


class _Rules:
    """What several rules share: the family's set names, and which sets are not empty."""

    def __init__(self, family: Family, set_: Settings, filled: set[str]) -> None:
        self._family, self._settings, self._filled = family, set_, filled

    def asks(self, which: str) -> InSet:
        return InSet(name_of(self._family, which), _FIELDS[TYPES[which]])

    def has(self, which: str) -> bool:
        return name_of(self._family, which) in self._filled

    def where(self, which: str, statement: Statement, *more: Match, before: tuple[Match, ...] = ()) -> tuple[Rule, ...]:
        """A rule that asks the set; none where it is empty."""
        return (Rule((*before, self.asks(which), *more), (statement,), COMMENTS[which]),) if self.has(which) else ()

    # ------------------------------------------------------------ nat

    def nat(self) -> Table:
        portals = (Rule((), (Jump("KUBE-SERVICES"),), "kubernetes service portals"),)
        postrouting = (Rule((), (Jump("KUBE-POSTROUTING"),), "kubernetes postrouting rules"),)
        return Table(
            self._family,
            "nat",
            (
                Chain("PREROUTING", portals, Base(Hook.PREROUTING, "nat", -100)),
                Chain("INPUT", (), Base(Hook.INPUT, "nat", 100)),
                Chain("OUTPUT", portals, Base(Hook.OUTPUT, "nat", -100)),
                Chain("POSTROUTING", postrouting, Base(Hook.POSTROUTING, "nat", 100)),
                Chain("KUBE-SERVICES", tuple(self._services())),
                Chain("KUBE-POSTROUTING", self._postrouting()),
                Chain("KUBE-NODE-PORT", tuple(self._node_port())),
                Chain("KUBE-LOAD-BALANCER", (*self.where("LOAD-BALANCER-LOCAL", Return()), Rule((), MARK))),
                Chain("KUBE-MARK-MASQ", (Rule((), (OrMark(MASQUERADE_MARK),)),)),
            ),
        )

    def _services(self) -> Iterator[Rule]:
        yield Rule((Source((localhost(self._family),)),), (Return(),))
        yield from self.where("LOAD-BALANCER", Jump("KUBE-LOAD-BALANCER"))
        yield from self._cluster_ip()
        yield from self.where("EXTERNAL-IP", *MARK)
        for which in ("EXTERNAL-IP", "EXTERNAL-IP-LOCAL"):
            yield from self.where(which, Accept(), SourceLocal(negate=True))
            yield from self.where(which, Accept(), DestinationLocal())
        yield Rule((DestinationLocal(),), (Jump("KUBE-NODE-PORT"),))
        for which in ("CLUSTER-IP", "LOAD-BALANCER"):
            if self.has(which):
                yield Rule((self.asks(which),), (Accept(),))

    def _cluster_ip(self) -> tuple[Rule, ...]:
        policy = self._settings.policy
        if policy.masquerade_all:
            return self.where("CLUSTER-IP", *MARK)
        if policy.remote is not None:
            return self.where("CLUSTER-IP", *MARK, policy.remote)
        asked = InSet(name_of(self._family, "CLUSTER-IP"), _FROM_ITS_OWN_ADDRESS)
        return (Rule((asked,), MARK, COMMENTS["CLUSTER-IP"]),) if self.has("CLUSTER-IP") else ()

    def _postrouting(self) -> tuple[Rule, ...]:
        return (
            *self.where("LOOP-BACK", Masquerade(random_fully=False)),
            Rule((MarkSet(MASQUERADE_MARK, negate=True),), (Return(),)),
            # The mark goes, so that a packet that passes the stack again is not masqueraded again.
            Rule((), (XorMark(MASQUERADE_MARK),)),
            Rule((), (Masquerade(),), "kubernetes service traffic requiring SNAT"),
        )

    def _node_port(self) -> Iterator[Rule]:
        for protocol, suffix in ((Protocol.TCP, "TCP"), (Protocol.UDP, "UDP"), (Protocol.SCTP, "SCTP-HASH")):
            only = (L4Proto(protocol),)
            yield from self.where(f"NODE-PORT-LOCAL-{suffix}", Return(), before=only)
            yield from self.where(f"NODE-PORT-{suffix}", *MARK, before=only)

    # ------------------------------------------------------------ filter

    def filter(self, ports: Sequence[PortEndpoints]) -> Table:
        firewall = Rule((), (Jump("KUBE-PROXY-FIREWALL"),), "kube-proxy firewall rules")
        access = "kubernetes ipvs access filter"
        # kube-proxy puts each jump in front of those that it made before.
        into = (
            Rule((), (Jump("KUBE-IPVS-FILTER"),), access),
            firewall,
            Rule((), (Jump("KUBE-NODE-PORT"),), "kubernetes health check rules"),
        )
        through = (firewall, Rule((), (Jump("KUBE-FORWARD"),), "kubernetes forwarding rules"))
        out = (Rule((), (Jump("KUBE-IPVS-OUT-FILTER"),), access),)
        return Table(
            self._family,
            "filter",
            (
                Chain("INPUT", into, Base(Hook.INPUT, "filter", 0)),
                Chain("FORWARD", through, Base(Hook.FORWARD, "filter", 0)),
                Chain("OUTPUT", out, Base(Hook.OUTPUT, "filter", 0)),
                Chain("KUBE-FORWARD", _FORWARD),
                Chain("KUBE-NODE-PORT", (self._health_check(),)),
                Chain("KUBE-PROXY-FIREWALL", self.where("LOAD-BALANCER-FW", Jump("KUBE-SOURCE-RANGES-FIREWALL"))),
                Chain("KUBE-SOURCE-RANGES-FIREWALL", self._source_ranges()),
                Chain("KUBE-IPVS-FILTER", tuple(self._ipvs_filter())),
                Chain("KUBE-IPVS-OUT-FILTER", tuple(self._out_filter(ports))),
            ),
        )

    def _health_check(self) -> Rule:
        return Rule((self.asks("HEALTH-CHECK-NODE-PORT"),), (Accept(),), COMMENTS["HEALTH-CHECK-NODE-PORT"])

    def _source_ranges(self) -> tuple[Rule, ...]:
        return (
            *self.where("LOAD-BALANCER-SOURCE-CIDR", Return()),
            *self.where("LOAD-BALANCER-SOURCE-IP", Return()),
            Rule((), (Drop(),)),
        )

    def _ipvs_filter(self) -> Iterator[Rule]:
        """kubernetes/kubernetes#72236: what listens on every address of the node must not be reached at a Service's."""
        for which in ("LOAD-BALANCER", "CLUSTER-IP", "EXTERNAL-IP", "EXTERNAL-IP-LOCAL", "HEALTH-CHECK-NODE-PORT"):
            yield Rule((self.asks(which),), (Return(),))
        yield Rule((CtState(("new",)), self.asks("IPVS-IPS")), (Reject(),))

    def _out_filter(self, ports: Sequence[PortEndpoints]) -> Iterator[Rule]:
        """kubernetes/kubernetes#119656: the node's own packets do not pass INPUT, where source ranges are asked.

        Only what has the load balancer's address as source is seen: a process that chose another gets through.
        """
        for front in (port.front for port in ports):
            if front.source_ranges and not self._settings.allows_node(front.source_ranges):
                for address in front.load_balancer_ips:
                    sent_by = OfVirtualServer(address, front.protocol, front.port)
                    yield Rule((Source((host(address),)), sent_by), (Drop(),), owner=front.owner)


_FORWARD = (
    Rule((MarkSet(MASQUERADE_MARK),), (Accept(),), "kubernetes forwarding rules"),
    Rule((CtState(("related", "established")),), (Accept(),), "kubernetes forwarding conntrack rule"),
)
