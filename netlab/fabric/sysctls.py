"""The sysctls of each kind of namespace: everything that packets depend on, because a new namespace inherits from the host.

(net.core.devconf_inherit_init_net: conf/all and conf/default of IPv4 are copied from the machine's own namespace.)

Order matters twice. conf/<device> is copied from conf/default when a device is made: so sysctls come before links. Writing
ip_forward rewrites conf/all/accept_redirects (net/ipv4/devinet.c, inet_forward_change): so it comes first.
"""

from collections.abc import Iterable

from netlab.model import Cluster
from netlab.ops import Sysctl

_PROGRAMS = (
    # Echo sockets without CAP_NET_RAW; group 0 is the one that is mapped in every user namespace.
    ("net/ipv4/ping_group_range", "0 0"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
)
_ANSWERS = (
    # A refusal is an answer: by default all but the first six ICMP errors to one client are withheld (net/ipv4/icmp.c).
    ("net/ipv4/icmp_ratemask", "0"),
)
_MACHINE = (
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),
    ("net/ipv4/conf/all/accept_redirects", "0"),
    ("net/ipv4/conf/default/accept_redirects", "0"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
)
_BRIDGE = tuple((f"net/bridge/bridge-nf-call-{what}", "0") for what in ("iptables", "ip6tables", "arptables"))
_BE_LIBERAL = "net/netfilter/nf_conntrack_tcp_be_liberal"


def speaks_ipv6(cluster: Cluster) -> bool:
    """Whether anything in the lab has an IPv6 address; if not, IPv6 is off on every device (its link-local noise is unwanted)."""
    config = cluster.topology.cluster
    lans = cluster.topology.networks
    return any(
        network.version == 6
        for network in (*config.pod_cidrs, *config.service_cidrs, *(cidr for lan in lans for cidr in lan.cidrs))
    )


def of_node(netns: str, ipv6: bool, tcp_be_liberal: bool) -> tuple[Sysctl, ...]:
    """A node forwards, and tracks connections whose other half may take another way."""
    liberal = (_BE_LIBERAL, "1" if tcp_be_liberal else "0")
    values = (("net/ipv4/ip_forward", "1"), *_MACHINE, *_ANSWERS, *_PROGRAMS, liberal)
    return _ops(netns, values) + _ops(netns, _BRIDGE, optional=True) + _ipv6(netns, ipv6, forwards=True)


def of_router(netns: str, ipv6: bool) -> tuple[Sysctl, ...]:
    """The router forwards and runs no programs."""
    return _ops(netns, (("net/ipv4/ip_forward", "1"), *_MACHINE, *_ANSWERS)) + _ipv6(netns, ipv6, forwards=True)


def of_host(netns: str, ipv6: bool) -> tuple[Sysctl, ...]:
    """An outside host may get answers from where it did not send to: no reverse path filter."""
    return _ops(netns, (("net/ipv4/ip_forward", "0"), *_MACHINE, *_ANSWERS, *_PROGRAMS)) + _ipv6(netns, ipv6, forwards=False)


def of_pod(netns: str, ipv6: bool) -> tuple[Sysctl, ...]:
    """A pod has one way out, so that neither the reverse path filter nor a redirect (no node sends one) can matter."""
    return _ops(netns, (("net/ipv4/ip_forward", "0"), *_ANSWERS, *_PROGRAMS)) + _ipv6(netns, ipv6, forwards=False)


def of_switch(netns: str) -> tuple[Sysctl, ...]:
    """A LAN's switch bridges, speaks no IP, and must not show frames to iptables."""
    return _ops(netns, _BRIDGE, optional=True) + _ipv6(netns, False, forwards=False)


def _ipv6(netns: str, ipv6: bool, forwards: bool) -> tuple[Sysctl, ...]:
    """conf/default only, so that `lo` keeps ::1. Optional: a kernel without IPv6 is as good."""
    if not ipv6:
        return _ops(netns, (("net/ipv6/conf/default/disable_ipv6", "1"),), optional=True)
    dad = (("net/ipv6/conf/default/disable_ipv6", "0"), ("net/ipv6/conf/default/accept_dad", "0"))
    return _ops(
        netns,
        (
            ("net/ipv6/conf/all/forwarding", "1" if forwards else "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            *dad,
            # A router without a link-local address sends no redirects (ndisc_send_redirect); IPv6 has no sysctl for them.
            ("net/ipv6/conf/default/addr_gen_mode", "1"),
            ("net/ipv6/conf/default/accept_redirects", "0"),
            # A refusal is an answer, as in IPv4. The mask names the types that are limited, and nobody sends type 0.
            ("net/ipv6/icmp/ratemask", "0"),
        ),
    )


def _ops(netns: str, values: Iterable[tuple[str, str]], optional: bool = False) -> tuple[Sysctl, ...]:
    return tuple(Sysctl(netns, key, value, optional) for key, value in values)
