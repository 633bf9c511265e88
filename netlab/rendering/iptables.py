"""Ruleset -> input of `iptables-restore --noflush` (ip6tables-restore for family ip6), whole or only what changed.

Decides the spelling, which is iptables-save's own: a rule reads the same here, in a plan and in a node's `iptables-save`, and can
be compared with it as text. Refuses to know what the rules mean, and to load them.

netlab owns the namespace, so the built-in chains are rewritten whole (`-F` and then every rule) instead of adding jumps that may
be there already. A whole text may also be loaded without --noflush: it then replaces its tables whatever they held, which is
how a lab is repaired. With --noflush it leaves chains alone that it does not name.

Each table is one transaction (its COMMIT). Chains are declared first, which empties them, then filled, and chains that are gone
are deleted last, when nothing refers to them any more. Written for iptables 1.8.7 to 1.8.10, both back ends.
"""

from collections.abc import Iterable, Iterator
from typing import assert_never

from netlab.model import Address, Network, Protocol
from netlab.rendering.alike import unlike
from netlab.ruleset import (
    Accept,
    Chain,
    CtDnat,
    CtState,
    Destination,
    DestinationLocal,
    DestinationPort,
    Dnat,
    DnatLookup,
    DnatRandom,
    Drop,
    Family,
    Field,
    Goto,
    GotoRandom,
    InInterface,
    InSet,
    Jump,
    L4Proto,
    Lookup,
    MarkSet,
    Masquerade,
    Match,
    OfVirtualServer,
    OrMark,
    Probability,
    RecentlySeen,
    Redirect,
    Reject,
    RememberSource,
    Return,
    Rule,
    Ruleset,
    Source,
    SourceLocal,
    Statement,
    Table,
    UpdateSet,
    XorMark,
)

PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def text(ruleset: Ruleset, old: Ruleset | None = None, family: Family = "ip") -> str:
    """Input that makes the namespace hold `ruleset`, given that it holds `old` (None: nothing of ours, or it does not matter).

    Shape: tables in the Ruleset's order; '' when nothing has to change.
    """
    assert ruleset.dialect == "iptables"
    before = {table.name: table for table in old.tables if table.family == family} if old is not None else {}
    tables = [table for table in ruleset.tables if table.family == family]
    gone = [Table(family, name, ()) for name in before if name not in {table.name for table in tables}]
    return "".join(_table(table, before.get(table.name)) for table in (*tables, *gone))


def lines(ruleset: Ruleset, family: Family = "ip") -> dict[str, tuple[str, ...]]:
    """What `iptables-save` shows of each table once it is loaded: its `:CHAIN` and `-A` lines, to compare with what it holds.

    Shape: by table name; each in the Ruleset's order (iptables-save sorts the chains, and shows counters).
    """
    return {
        table.name: tuple(line for chain in table.chains for line in (_declared(chain).split(" [")[0], *_rules(chain, family)))
        for table in ruleset.tables
        if table.family == family
    }


def in_pieces(whole: str, most_bytes: int) -> tuple[str, str]:
    """A whole text for a kernel that takes only so much at once (an ordinary user's): one text that declares chains, to be
    loaded without --noflush, and one that fills them, in as many transactions as it takes, to be loaded with it.

    What is sent is estimated from above: a rule takes 360 bytes as iptables-nft 1.8.9 sends it, 600 with a comment, and 1,100
    with all that kube-proxy's rules may hold.
    """
    declared, filled = "", ""
    for block in whole.split("COMMIT\n")[:-1]:
        name, *found = block.splitlines()
        first, *more = _heaps((line for line in found if line[0] == ":"), most_bytes)
        declared += "\n".join((name, *first, "COMMIT", ""))
        for heap in (*more, *_heaps((line for line in found if line[0] != ":"), most_bytes)):
            filled += "\n".join((name, *heap, "COMMIT", ""))
    return declared, filled


def _heaps(found: Iterable[str], most_bytes: int) -> Iterator[list[str]]:
    """Lines in order, parted so that each part is no more than that once it is sent; at least one, perhaps empty, part."""
    heap: list[str] = []
    size = 0
    for line in found:
        size += (weight := _sent_bytes(line))
        if size > most_bytes:
            yield heap
            heap, size = [], weight
        heap.append(line)
    yield heap


def _sent_bytes(line: str) -> int:
    if line[0] == ":":
        return 150
    return 350 + 150 * line.count(" -m ") + 250 * (" -m comment " in line) + 300 * (" -m recent " in line)


def _table(table: Table, old: Table | None) -> str:
    # Planners reuse the chains that stayed the same, and one plan has thousands of them.
    old_chains, chains = unlike(old.chains if old is not None else (), table.chains)
    before = {chain.name: chain for chain in old_chains}
    changed = [chain for chain in chains if (was := before.get(chain.name)) is not chain and was != chain]
    now = {chain.name for chain in chains}
    gone = [chain for name, chain in before.items() if name not in now]
    if not changed and not gone:
        return ""
    out = [f"*{table.name}"]
    out += (_declared(chain) for chain in changed)
    out += (_declared(chain) for chain in gone)
    # Declaring a chain of the user's empties it, even with --noflush; a built-in one keeps its rules.
    out += (f"-F {chain.name}" for chain in (*changed, *gone) if chain.base is not None)
    for chain in changed:
        out += _rules(chain, table.family)
    out += (f"-X {chain.name}" for chain in gone if chain.base is None)
    return "\n".join((*out, "COMMIT", ""))


def _declared(chain: Chain) -> str:
    return f":{chain.name} {chain.base.policy.upper() if chain.base is not None else '-'} [0:0]"


def _rules(chain: Chain, family: Family) -> Iterator[str]:
    built_in = chain.base is not None
    return (f"-A {chain.name}{_rule(rule, built_in, family)}" for rule in chain.rules)


def _rule(rule: Rule, built_in: bool, family: Family) -> str:
    """The order is iptables-save's: addresses, interface, protocol, matches as they were added, target.

    kube-proxy gives the comment first, except in the jumps that it puts into built-in chains, where it comes last.
    """
    head: dict[str, str] = {}
    matches: list[str] = []
    ports: list[str] = []
    for match in rule.matches:
        _match(match, family, head, matches, ports)
    comment = [f"-m comment --comment {_quoted(rule.comment)}"] if rule.comment else []
    middle = [*matches, *comment] if built_in else [*comment, *matches]
    targets: list[str] = []
    remembered: list[str] = []
    for statement in rule.statements:
        (remembered if isinstance(statement, RememberSource) else targets).append(_statement(statement, family))
    assert len(targets) <= 1, f"iptables has one target a rule: {rule}"
    if any(isinstance(match, InSet) for match in rule.matches):  # kube-proxy gives -p alone: the set looks at the port
        ports = []
    parts = [head[key] for key in ("-s", "-d", "-i", "-p") if key in head]
    return "".join(f" {part}" for part in (*parts, *middle, *remembered, *ports, *targets))


def _match(match: Match, family: Family, head: dict[str, str], matches: list[str], ports: list[str]) -> None:
    """Adds to `head` what is printed before the comment, by option; to `ports` what is printed after all other matches."""
    match match:
        case Source(networks, negate):
            head["-s"] = f"{_not(negate)}-s {_one(networks)}"
        case Destination(networks, negate):
            head["-d"] = f"{_not(negate)}-d {_one(networks)}"
        case InInterface(name, prefix, negate):
            head["-i"] = f"{_not(negate)}-i {name}{'+' if prefix else ''}"
        case L4Proto(protocol):
            head["-p"] = f"-p {protocol.lower()}"
            ports.insert(0, f"-m {protocol.lower()}")
        case DestinationPort(port):
            ports.append(f"--dport {port}")
        case SourceLocal(negate):
            matches.append(f"-m addrtype {_not(negate)}--src-type LOCAL")
        case DestinationLocal():
            matches.append("-m addrtype --dst-type LOCAL")
        case CtState(states, negate):
            matches.append(f"-m conntrack {_not(negate)}--ctstate {','.join(states).upper()}")
        case CtDnat(negate):
            matches.append(f"-m conntrack {_not(negate)}--ctstate DNAT")
        case MarkSet(mask, negate):
            matches.append(f"-m mark {_not(negate)}--mark {mask:#x}/{mask:#x}")
        case Probability(value):
            matches.append(f"-m statistic --mode random --probability {_probability(value)}")
        case RecentlySeen(name, seconds):
            matches.append(f"-m recent --rcheck --seconds {seconds} --reap --name {name} {_RECENT[family]}")
        case InSet(name, fields, negate):
            matches.append(f"-m set {_not(negate)}--match-set {name} {','.join(_SIDES[one] for one in fields if one in _SIDES)}")
        case OfVirtualServer(address, protocol, port):
            matches.append(f"-m ipvs --vproto {_NUMBERS[protocol]} --vaddr {_virtual(address)} --vport {port}")
        case _:
            assert_never(match)


_SIDES = {Field.SADDR: "src", Field.DADDR: "dst", Field.DPORT: "dst"}
"""What ipset asks of a packet for a field; the protocol comes with the port."""
_NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}


def _virtual(address: Address) -> str:
    """libxt_ipvs shows the mask of an IPv6 address, but not that of an IPv4 one."""
    return str(address) if address.version == 4 else f"{address}/128"


_RECENT: dict[Family, str] = {
    "ip": "--mask 255.255.255.255 --rsource",
    "ip6": "--mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource",
}


def _statement(statement: Statement, family: Family) -> str:
    match statement:
        case Accept() | Drop() | Return():
            return f"-j {type(statement).__name__.upper()}"
        case Reject():
            return f"-j REJECT --reject-with {'icmp' if family == 'ip' else 'icmp6'}-port-unreachable"
        case Jump(chain):
            return f"-j {chain}"
        case Goto(chain):
            return f"-g {chain}"
        case OrMark(bits):
            return f"-j MARK --set-xmark {bits:#x}/{bits:#x}"
        case XorMark(bits):
            return f"-j MARK --set-xmark {bits:#x}/0x0"
        case Dnat(address, port):
            shown = f"{address}" if address.version == 4 else f"[{address}]"
            return f"-j DNAT --to-destination {shown}:{port}"
        case Redirect(port):
            return f"-j REDIRECT --to-ports {port}"
        case Masquerade(random_fully):
            return "-j MASQUERADE --random-fully" if random_fully else "-j MASQUERADE"
        case RememberSource(name):
            return f"-m recent --set --name {name} {_RECENT[family]}"
        case DnatRandom() | DnatLookup() | GotoRandom() | UpdateSet() | Lookup():
            raise AssertionError(f"not an iptables statement: {statement}")
        case _:
            assert_never(statement)


def _not(negate: bool) -> str:
    return "! " if negate else ""


def _one(networks: tuple[Network, ...]) -> str:
    assert len(networks) == 1, f"iptables takes one network a match: {networks}"
    return str(networks[0])


def _probability(value: float) -> str:
    """kube-proxy gives ten decimals, the kernel keeps 31 bits, and iptables-save shows eleven decimals of those."""
    kept = round(float(f"{value:.10f}") * 0x80000000)
    return f"{kept / 0x80000000:.11f}"


def _quoted(comment: str) -> str:
    if PLAIN.issuperset(comment):
        return comment
    escaped = comment.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
