"""BIRD 2's configuration: values to text, the same for the same values, and what its control socket says of sessions.

Decides timers. BFD finds a dead neighbour after 4 x 150 ms. A dropped session is tried again after one second (`error wait
time`; BIRD's default is 60 s, doubling up to 300), a new one is opened after the smallest delay that BIRD has, one second less
up to a quarter at random. Everything learned goes into the kernel's main table, equally good ways as one multipath route; every
two seconds BIRD looks whether it is still there. Refuses to know nodes, clusters and which addresses are whose. Made for BIRD
2.0 (Debian 12) and later.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from netlab.model import Address, Network

SOCKET, CONFIG = "bird.ctl", "bird.conf"
COMMAND = ("bird", "-f", "-c", CONFIG, "-s", SOCKET)
"""In the foreground, and without -u: with a single uid mapped there is no other user to become."""
_PATHS = 64


@dataclass(frozen=True, slots=True)
class Session:
    """One BGP session, of the family of its addresses. `passive`: the other side calls. `accepts`: prefixes that are believed."""

    name: str
    own: Address
    own_as: int
    neighbour: Address
    neighbour_as: int
    accepts: tuple[Network, ...]
    sends: tuple[Network, ...]
    passive: bool = False


def config(router_id: IPv4Address, announced: Sequence[Network], sessions: Sequence[Session]) -> str:
    """The whole file. `announced`: prefixes that this machine is the way to."""
    return "\n".join((*_head(router_id), *_tables(announced), *(line for one in sessions for line in _session(one)))) + "\n"


def _head(router_id: IPv4Address) -> Iterator[str]:
    yield "log stderr all;"
    yield f"router id {router_id};"
    yield "protocol device { scan time 10; }"
    yield 'protocol bfd { interface "eth*" { min rx interval 150 ms; min tx interval 150 ms; multiplier 4; }; }'


def _tables(announced: Sequence[Network]) -> Iterator[str]:
    for version in (4, 6):
        channel = f"ipv{version}"
        yield f"protocol kernel kernel{version} {{"
        yield f"  scan time 2; merge paths yes limit {_PATHS};"
        yield f"  {channel} {{ import none; export where source = RTS_BGP; }};"
        yield "}"
        own = [network for network in announced if network.version == version]
        if own:
            yield f"protocol static announced{version} {{"
            yield f"  {channel};"
            yield from (f"  route {network} unreachable;" for network in own)
            yield "}"


def _session(one: Session) -> Iterator[str]:
    yield f"protocol bgp {one.name} {{"
    yield f"  local {one.own} as {one.own_as};"
    yield f"  neighbor {one.neighbour} as {one.neighbour_as};"
    yield "  direct; bfd on;" + (" passive on;" if one.passive else "")
    yield "  connect delay time 1; connect retry time 1; error wait time 1, 2; hold time 30; keepalive time 10;"
    yield f"  ipv{one.own.version} {{"
    yield f"    import where {_any_of(one.accepts)};"
    yield f"    export where {_any_of(one.sends)};"
    yield "  };"
    yield "}"


def _any_of(networks: Iterable[Network]) -> str:
    """True of each of the networks and of every part of it."""
    listed = ", ".join(f"{network}+" for network in networks)
    return f"net ~ [ {listed} ]" if listed else "false"


def down(answer: str) -> list[tuple[str, str]]:
    """(session, its state and why) of each BGP session that is not established, from what `show protocols` answers."""
    found = []
    for line in answer.splitlines():
        words = line[5:].split() if line[:4].isdigit() else line.split()
        if len(words) >= 4 and words[1] == "BGP" and "Established" not in words:
            found.append((words[0], " ".join(words[5:]) or words[3]))
    return found
