"""When an IPv6 address is in force: what was acknowledged may still be on its way.

The kernel answers at once, but makes the route by which an address is its own in a work queue, and under its big lock
(addrconf_dad_work, also without duplicate address detection): 20 ms later where the machine is busy, seconds where it is very
busy. Until then a packet for the address is dropped or forwarded. An IPv4 address is in force with the answer.
"""

from collections.abc import Iterable, Mapping

from netlab.kernel import netlink as nl
from netlab.kernel.session import Session
from netlab.kernel.waiting import wait_for
from netlab.model import Address

_TYPE_AT = 7
_OWN = (nl.RTN_LOCAL, nl.RTN_ANYCAST)
"""The first address of a prefix is the anycast address of its routers, too (RFC 4291, 2.6.1): either answer makes it ours."""
_DESTINATION = 1


def wait_until_local(session: Session, wanted: Mapping[str, Iterable[Address]]) -> None:
    """Return when every namespace takes these addresses for its own. Raises KernelError."""
    wait_for(
        wanted,
        lambda netns, addresses: _not_local(session.socket(netns), addresses),
        "the kernel does not take the address into use",
    )


def _not_local(sock: nl.Socket, addresses: Iterable[Address]) -> tuple[Address, ...]:
    asked = {address.packed: address for address in addresses}
    answers = sock.ask([nl.get_route(address) for address in asked.values()])
    local = {nl.attributes(body, nl.RTMSG.size).get(_DESTINATION) for body in answers if body[_TYPE_AT] in _OWN}
    return tuple(address for packed, address in asked.items() if packed not in local)
