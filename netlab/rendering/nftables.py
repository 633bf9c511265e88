"""Ruleset -> input of `nft -f`, whole or only what changed. One input is one transaction: a reader never meets half of it.

Decides the spelling, which is that of `nft list ruleset` where it is valid input. Refuses to know what the rules mean, and to
load them.

A whole text replaces the tables (add, delete, and the table again), and with them the remembered clients of session affinity. A
difference works in the order in which the kernel can follow: new chains are made, changed and stale chains emptied, elements
taken out, stale sets, maps and chains deleted (nothing refers to them any more), new sets and maps made, rules and elements put
in. Before Linux 6.2 a chain counts as referred to for a moment after its map element is deleted, so that deleting both at once
fails with EBUSY: whoever loads a difference then loads the whole text instead. Written for nft 1.0.2 and later.
"""

from dataclasses import replace
from typing import Any, assert_never, cast

from netlab.model import Network, Protocol
from netlab.rendering.alike import unlike
from netlab.ruleset import (
    Accept,
    Base,
    Chain,
    CtDnat,
    CtState,
    DataMap,
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
    Hook,
    InInterface,
    InSet,
    Jump,
    Key,
    L4Proto,
    Lookup,
    MapDef,
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
    SetDef,
    Source,
    SourceLocal,
    Statement,
    Table,
    UpdateSet,
    XorMark,
)

_TYPES = {Field.L4PROTO: "inet_proto", Field.DPORT: "inet_service"}
Item = SetDef | MapDef | DataMap


def text(ruleset: Ruleset, old: Ruleset | None = None) -> str:
    """Input that makes the namespace hold `ruleset`, given that it holds `old` (None: nothing of ours, or it does not matter).

    Shape: tables in the Ruleset's order; '' when nothing has to change.
    """
    assert ruleset.dialect == "nftables"
    before = {(table.family, table.name): table for table in old.tables} if old is not None else {}
    now = {(table.family, table.name) for table in ruleset.tables}
    parts = [f"delete table {family} {name}\n" for family, name in before if (family, name) not in now]
    for table in ruleset.tables:
        was = before.get((table.family, table.name))
        parts.append(_whole(table) if was is None or not _alike(table, was) else _difference(table, was))
    return "".join(parts)


def flush_text(tables: tuple[tuple[Family, str], ...] = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))) -> str:
    """Input that removes these tables, whether they are there or not."""
    return "".join(f"add table {family} {name}\ndelete table {family} {name}\n" for family, name in tables)


# ---------------------------------------------------------------- whole


def _whole(table: Table) -> str:
    family = table.family
    out = [flush_text(((family, table.name),)) + f"table {family} {table.name} {{"]
    if table.comment:
        out.append(f"\tcomment {_quoted(table.comment)}\n")
    for item in _items(table):
        body = [*_properties(item, family), *_elements_property(item)]
        out.append("\n".join((f"\t{_kind(item)} {item.name} {{", *(f"\t\t{line}" for line in body), "\t}\n")))
    for chain in table.chains:
        body = [*_chain_properties(chain), *(_rule(rule, family) for rule in chain.rules)]
        out.append("\n".join((f"\tchain {chain.name} {{", *(f"\t\t{line}" for line in body), "\t}\n")))
    return "\n".join((*out, "}", ""))


def _items(table: Table) -> tuple[Item, ...]:
    return (*table.sets, *table.maps, *table.data_maps)


def _kind(item: Item) -> str:
    return "set" if isinstance(item, SetDef) else "map"


def _properties(item: Item, family: Family) -> list[str]:
    if isinstance(item, DataMap):
        # A random number has no type by which a key could be declared: typeof says it by an example. The example's port decides
        # the protocol of rules that ask the map: nft 1.0.6 adds `meta l4proto tcp` to them where the map says `tcp dport`, and
        # cannot read back a map that says `th dport` ("conflicting protocols specified: ip vs. th").
        value = f"{family} daddr . {item.protocol.lower()} dport"
        out = [f"typeof {_fields(item.fields, family)} . numgen random mod {item.modulus} : {value}"]
        return [*out, f"comment {_quoted(item.comment)}"] if item.comment else out
    key = " . ".join(_TYPES.get(field, "ipv4_addr" if family == "ip" else "ipv6_addr") for field in item.fields)
    out = [f"type {key}" + ("" if isinstance(item, SetDef) else " : verdict")]
    if isinstance(item, SetDef) and item.timeout_s is not None:
        # `dynamic` from the start: the kernel adds it when a rule updates the set, and the definitions would differ.
        out += ["flags dynamic,timeout", f"timeout {item.timeout_s}s"]
    if isinstance(item, SetDef) and item.interval:
        out.append("flags interval")
    return [*out, f"comment {_quoted(item.comment)}"] if item.comment else out


def _elements_property(item: Item) -> list[str]:
    elements = _elements(item)
    return ["elements = { " + ",\n\t\t\t     ".join(elements.values()) + " }"] if elements else []


def _elements(item: Item) -> dict[str, str]:
    """Key -> the element as it is added, in order."""
    if isinstance(item, SetDef):
        return {key: key for key in map(_key, item.elements)}
    if isinstance(item, DataMap):
        return {
            f"{start} . {number}": f"{start} . {number} : {address} . {port}"
            for start, targets in ((_key(key), targets) for key, targets in item.elements)
            for number, (address, port) in enumerate(targets)
        }
    comments = item.element_comments or ("",) * len(item.elements)
    out = {}
    for (key, verdict), comment in zip(item.elements, comments, strict=True):
        shown = _key(key)
        out[shown] = f"{shown}{f' comment {_quoted(comment)}' if comment else ''} : {_statement(verdict, 'ip')}"
    return out


def _key(key: Key) -> str:
    return " . ".join(part.lower() if isinstance(part, Protocol) else str(part) for part in key)


def _chain_properties(chain: Chain) -> list[str]:
    out = [f"comment {_quoted(chain.comment)}"] if chain.comment else []
    if chain.base is not None:
        base = chain.base
        out.append(f"type {base.type} hook {base.hook} priority {_priority(base)}; policy {base.policy};")
    return out


def _priority(base: Base) -> str:
    """By name where nft 1.0.6 has one: `dstnat` is known at prerouting only, so that output's is a number."""
    match base.hook, base.priority:
        case _, 0:
            return "filter"
        case Hook.PREROUTING, -100:
            return "dstnat"
        case Hook.PREROUTING, -110:
            return "dstnat - 10"
        case Hook.POSTROUTING, 100:
            return "srcnat"
        case _, number:
            return str(number)


# ---------------------------------------------------------------- difference


def _alike(table: Table, old: Table) -> bool:
    """Only contents differ, so that a difference can say it: base chains and comments can only be made anew."""
    before = {chain.name: chain for chain in old.chains}
    same = all(
        (was := before.get(chain.name)) is chain or was is None or (was.base, was.comment) == (chain.base, chain.comment)
        for chain in table.chains
    )
    return same and table.comment == old.comment


def _difference(table: Table, old: Table) -> str:
    family = table.family
    prefix = f"{family} {table.name}"
    before_chains = {chain.name: chain for chain in old.chains}
    before_items = {item.name: item for item in _items(old)}
    items = {item.name: item for item in _items(table)}
    remade = {
        name
        for name, item in items.items()
        if (was := before_items.get(name)) is not None
        and was is not item
        and (_kind(was), _properties(was, family)) != (_kind(item), _properties(item, family))
    }
    made = [chain for chain in table.chains if chain.name not in before_chains]
    changed = [chain for chain in table.chains if _is_changed(chain, before_chains.get(chain.name), remade)]
    names = {chain.name for chain in table.chains}
    stale_chains = [name for name in before_chains if name not in names]
    stale_items = [item for name, item in before_items.items() if name not in items or name in remade]
    out = [f"add chain {prefix} {chain.name}{_block(_chain_properties(chain))}" for chain in made]
    out += (f"flush chain {prefix} {chain.name}" for chain in changed if chain.name in before_chains)
    out += (f"flush chain {prefix} {name}" for name in stale_chains)
    added: list[str] = []
    for name, item in items.items():
        known = before_items.get(name) if name not in remade else None
        removed, new = _element_changes(item, known)
        if removed:
            out.append(f"delete element {prefix} {name} {{ {', '.join(removed)} }}")
        if new:
            added.append(f"add element {prefix} {name} {{ {', '.join(new)} }}")
    out += (f"delete {_kind(item)} {prefix} {item.name}" for item in stale_items)
    out += (f"delete chain {prefix} {name}" for name in stale_chains)
    for name, item in items.items():
        if name not in before_items or name in remade:
            out.append(f"add {_kind(item)} {prefix} {name}{_block(_properties(item, family))}")
    out += (f"add rule {prefix} {chain.name} {_rule(rule, family)}" for chain in changed for rule in chain.rules)
    out += added
    return "".join(f"{line}\n" for line in out)


def _is_changed(chain: Chain, was: Chain | None, remade: set[str]) -> bool:
    """A chain that speaks of a set which is made anew must let go of it first, though its own rules stay the same."""
    if was is not chain and was != chain:
        return True
    return bool(remade) and any(name in remade for rule in chain.rules for name in _names(rule))


def _names(rule: Rule) -> list[str]:
    sets = [match.set_name for match in rule.matches if isinstance(match, InSet)]
    sets += (statement.set_name for statement in rule.statements if isinstance(statement, UpdateSet))
    return [*sets, *(statement.map_name for statement in rule.statements if isinstance(statement, Lookup | DnatLookup))]


def _element_changes(item: Item, was: Item | None) -> tuple[list[str], list[str]]:
    """Keys to delete, then elements to add. A value is changed by deleting its key and adding it again."""
    if was is not None and (was is item or was == item):
        return [], []
    if was is not None:
        was, item = _unlike(was, item)
    before = _elements(was) if was is not None else {}
    now = _elements(item)
    return (
        [key for key, shown in before.items() if now.get(key) != shown],
        [shown for key, shown in now.items() if before.get(key) != shown],
    )


def _unlike(was: Item, item: Item) -> tuple[Item, Item]:
    """Both without the elements that they begin and end with alike: of 20,000 elements then few have to be written out."""
    if isinstance(was, MapDef) and (was.element_comments or (isinstance(item, MapDef) and item.element_comments)):
        return was, item
    one, other = cast("Any", was), cast("Any", item)  # of one kind, so that their elements are
    old, new = unlike(one.elements, other.elements)
    return replace(one, elements=old), replace(other, elements=new)


def _block(properties: list[str]) -> str:
    if not properties:
        return ""
    return " { " + " ".join(line if line.endswith(";") else f"{line};" for line in properties) + " }"


# ---------------------------------------------------------------- rules


def _rule(rule: Rule, family: Family) -> str:
    parts = [_match(match, family) for match in rule.matches]
    parts += (_statement(statement, family) for statement in rule.statements)
    if rule.comment:
        parts.append(f"comment {_quoted(rule.comment)}")
    return " ".join(parts)


def _match(match: Match, family: Family) -> str:
    match match:
        case L4Proto(protocol):
            return f"meta l4proto {protocol.lower()}"
        case DestinationPort(port):
            return f"th dport {port}"
        case Source(networks, negate):
            return f"{family} saddr {_not(negate)}{_networks(networks)}"
        case Destination(networks, negate):
            return f"{family} daddr {_not(negate)}{_networks(networks)}"
        case SourceLocal():
            return "fib saddr type local"
        case DestinationLocal():
            return "fib daddr type local"
        case InInterface(name, prefix, negate):
            return f'iifname {_not(negate)}"{name}{"*" if prefix else ""}"'
        case CtState(states, negate):
            assert "dnat" not in states, "nftables says it with CtDnat"
            return f"ct state {_not(negate)}{states[0] if len(states) == 1 else '{ ' + ', '.join(states) + ' }'}"
        case CtDnat(negate):
            return "ct status & dnat == 0" if negate else "ct status dnat"
        case MarkSet(mask, negate):
            return f"meta mark & {mask:#010x} {'==' if negate else '!='} 0x00000000"
        case InSet(set_name, fields, negate):
            return f"{_fields(fields, family)} {_not(negate)}@{set_name}"
        case Probability() | RecentlySeen() | OfVirtualServer():
            raise AssertionError(f"not an nftables match: {match}")
        case _:
            assert_never(match)


def _statement(statement: Statement, family: Family) -> str:
    match statement:
        case Accept() | Drop() | Return() | Reject():
            return type(statement).__name__.lower()
        case Jump(chain):
            return f"jump {chain}"
        case Goto(chain):
            return f"goto {chain}"
        case OrMark(bits):
            return f"meta mark set meta mark | {bits:#010x}"
        case XorMark(bits):
            return f"meta mark set meta mark ^ {bits:#010x}"
        case Dnat(address, port):
            return f"dnat to {address}:{port}" if address.version == 4 else f"dnat to [{address}]:{port}"
        case DnatLookup(map_name, fields, modulus):
            return f"dnat {family} to {_fields(fields, family)} . numgen random mod {modulus} map @{map_name}"
        case DnatRandom(targets):
            return f"dnat {family} to {_random('map', [f'{address} . {port}' for address, port in targets])}"
        case GotoRandom(chains):
            return _random("vmap", [f"goto {chain}" for chain in chains])
        case Masquerade():
            return "masquerade fully-random"
        case UpdateSet(set_name):
            return f"update @{set_name} {{ {family} saddr }}"
        case Lookup(map_name, fields):
            return f"{_fields(fields, family)} vmap @{map_name}"
        case RememberSource() | Redirect():
            raise AssertionError(f"not an nftables statement: {statement}")
        case _:
            assert_never(statement)


def _random(kind: str, values: list[str]) -> str:
    elements = ", ".join(f"{index} : {value}" for index, value in enumerate(values))
    return f"numgen random mod {len(values)} {kind} {{ {elements} }}"


def _fields(fields: tuple[Field, ...], family: Family) -> str:
    words = {
        Field.SADDR: f"{family} saddr",
        Field.DADDR: f"{family} daddr",
        Field.L4PROTO: "meta l4proto",
        Field.DPORT: "th dport",
    }
    return " . ".join(words[field] for field in fields)


def _networks(networks: tuple[Network, ...]) -> str:
    shown = [str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network) for network in networks]
    return shown[0] if len(shown) == 1 else "{ " + ", ".join(shown) + " }"


def _not(negate: bool) -> str:
    return "!= " if negate else ""


def _quoted(comment: str) -> str:
    return '"' + comment.replace('"', "'") + '"'
