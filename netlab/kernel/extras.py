"""Taking away what no op asks for: links, addresses, routes, neighbours and nftables tables that someone made by hand.

Named by identities, which verify.py gives: as an op's, but a route's has its metric as a fourth part, and an nftables table is
("table", netns, family, name).
"""

from collections.abc import Sequence
from ipaddress import ip_address, ip_interface, ip_network

from netlab.errors import KernelError
from netlab.kernel import ipvs, qdisc
from netlab.kernel import netlink as nl
from netlab.kernel.namespaces import entered
from netlab.kernel.session import GONE, Session
from netlab.model import Protocol
from netlab.ops import Identity, Netns

_NFNL_BATCH_BEGIN, _NFNL_BATCH_END, _NFT_DELTABLE = 0x10, 0x11, (10 << 8) | 2
_FAMILIES = {"inet": 1, "ip": 2, "arp": 3, "netdev": 5, "bridge": 7, "ip6": 10}


def remove(session: Session, extra: Sequence[Identity]) -> None:
    """Queue the deletion of each; tables are deleted at once. What is gone already is no error."""
    for identity in extra:
        match identity:
            case ("table", netns, family, name):
                _delete_table(session, netns, family, name)
            case ("virtual-server", netns, protocol, address, port) if netns in session.fds:
                with ipvs.Table(session.fds[netns]) as table:
                    table.delete([(Protocol(protocol), ip_address(address), int(port))])
            case (_, netns, *_) if netns in session.fds:
                message = _message(session, identity)
                if message is not None:
                    session.queue(netns, message, Netns(netns), GONE)
            case _:
                pass


def _message(session: Session, identity: Identity) -> nl.Message | None:
    match identity:
        case ("link", netns, device):
            index = session.index(netns, device)
            return nl.del_link(index) if index is not None else None
        case ("qdisc", netns, device):
            index = session.index(netns, device)
            return qdisc.remove(index) if index is not None else None
        case ("address", netns, device, text):
            index = session.index(netns, device)
            interface = ip_interface(text)
            return nl.del_address(index, interface.ip, interface.network.prefixlen) if index is not None else None
        case ("route", _, destination, metric):
            return nl.del_route(ip_network(destination), nl.Hop(), int(metric))
        case ("forwarding", netns, device, mac):
            index = session.index(netns, device)
            return nl.del_forwarding(index, mac) if index is not None else None
        case ("neighbour", netns, device, text):
            index = session.index(netns, device)
            return nl.del_neighbour(index, ip_address(text)) if index is not None else None
        case _:
            return None


def _delete_table(session: Session, netns: str, family: str, name: str) -> None:
    batch = b"\0\0" + (10).to_bytes(2, "big")
    body = bytes((_FAMILIES[family], 0, 0, 0)) + nl.attr_text(1, name)
    messages = (
        nl.Message(_NFNL_BATCH_BEGIN, 0, batch),
        nl.Message(_NFT_DELTABLE, nl.NLM_F_ACK, body),
        nl.Message(_NFNL_BATCH_END, 0, batch),
    )
    with entered(session.fds[netns], session.home):
        sock = nl.Socket(nl.NETLINK_NETFILTER)
    with sock:
        for refused in sock.transact(messages, acked=1):
            if refused.errno not in GONE:
                raise KernelError(f"{netns}: cannot delete the nftables table {family} {name}: {refused.text}")
