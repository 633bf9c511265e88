"""When an IPv6 address is in force: what was acknowledged may still be on its way.

The kernel answers at once, but makes the route by which an address is its own in a work queue, and under its big lock
(addrconf_dad_work, also without duplicate address detection): 20 ms later where the machine is busy, seconds where it is very
busy. Until then a packet for the address is dropped or forwarded. An IPv4 address is in force with the answer.
"""

import time
from collections.abc import Iterable, Mapping

from netlab.errors import KernelError
from netlab.kernel import netlink as nl
from netlab.kernel.session import Session
from netlab.model import Address

_IN_FORCE_S = 30.0
_TYPE_AT = 7
_OWN = (nl.RTN_LOCAL, nl.RTN_ANYCAST)
"""The first address of a prefix is the anycast address of its routers, too (RFC 4291, 2.6.1): either answer makes it ours."""
_DESTINATION = 1


def wait_until_local(session: Session, wanted: Mapping[str, Iterable[Address]]) -> None:
    """Return when every namespace takes these addresses for its own. Raises KernelError."""
    deadline, pause_s = time.monotonic() + _IN_FORCE_S, 0.0005
    waiting = {netns: tuple(addresses) for netns, addresses in wanted.items()}
    while waiting := {netns: left for netns, known in waiting.items() if (left := _not_local(session.socket(netns), known))}:
        if time.monotonic() > deadline:
            netns, left = next(iter(waiting.items()))
            raise KernelError(f"{netns}: {', '.join(map(str, left[:8]))}: the kernel does not take the address into use")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.05)


def _not_local(sock: nl.Socket, addresses: Iterable[Address]) -> tuple[Address, ...]:
    asked = {address.packed: address for address in addresses}
    answers = sock.ask([nl.get_route(address) for address in asked.values()])
    local = {nl.attributes(body, nl.RTMSG.size).get(_DESTINATION) for body in answers if body[_TYPE_AT] in _OWN}
    return tuple(address for packed, address in asked.items() if packed not in local)
