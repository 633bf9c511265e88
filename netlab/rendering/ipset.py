"""IpSets -> input of `ipset restore`: what to put in before the rules change, and what to take out after them.

Decides the spelling, which is that of `ipset save`: an element reads the same here, in a plan and in a node's `ipset save`, and
can be compared with it as text. Refuses to know what the sets mean, and to load them.

Two halves, because a rule can only name a set that is there, and a set can only go when no rule names it any more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netlab.model import Address, Network, Protocol
from netlab.ruleset import IpSet, Key

_PORTS = "range 0-65535"
_HASH = "hashsize 1024 maxelem 65536"


@dataclass(frozen=True, slots=True)
class Listed:
    """A set as ipset(8) writes it: how it is created, and its elements."""

    create: str
    elements: frozenset[str]


Sets = Mapping[str, Listed]


def listed(sets: Iterable[IpSet]) -> dict[str, Listed]:
    """By name, in their order."""
    return {one.name: Listed(_create(one), frozenset(map(element, one.elements))) for one in sets}


def before(new: Sets, old: Sets) -> str:
    """Input that makes the sets that are new and puts in what is missing; '' when nothing is."""
    lines = [f"create {name} {one.create}" for name, one in new.items() if name not in old]
    for name, one in new.items():
        had = old[name].elements if name in old else frozenset()
        lines += (f"add {name} {text}" for text in sorted(one.elements - had))
    return _input(lines)


def after(new: Sets, old: Sets) -> str:
    """Input that takes out what is too much and destroys the sets that are gone; '' when nothing is."""
    lines = [
        f"del {name} {text}" for name, one in new.items() if name in old for text in sorted(old[name].elements - one.elements)
    ]
    return _input([*lines, *(f"destroy {name}" for name in old if name not in new)])


def text(sets: Iterable[IpSet]) -> str:
    """All of it, as for an empty kernel."""
    return before(listed(sets), {})


def parsed(saved: str) -> dict[str, Listed]:
    """What `ipset save` printed. Of how a set is created only the type and the family are kept."""
    creates: dict[str, str] = {}
    elements: dict[str, set[str]] = {}
    for line in saved.splitlines():
        verb, _, rest = line.partition(" ")
        name, _, words = rest.partition(" ")
        if verb == "create":
            creates[name] = words
            elements[name] = set()
        elif verb == "add":
            elements[name].add(words.strip())
    return {name: Listed(create, frozenset(elements[name])) for name, create in creates.items()}


def same_kind(one: Listed, other: Listed) -> bool:
    """Of the same type and family: hash sizes and seeds are the kernel's business."""
    return _kind(one.create) == _kind(other.create)


def _kind(create: str) -> tuple[str, ...]:
    words = create.split()
    return (words[0], words[words.index("family") + 1] if "family" in words else "")


def _create(one: IpSet) -> str:
    if one.type == "bitmap:port":
        return f"{one.type} {_PORTS}"
    return f"{one.type} family {'inet' if one.family == 'ip' else 'inet6'} {_HASH}"


def element(key: Key) -> str:
    """`10.96.0.10,tcp:80`, `203.0.113.200,tcp:80,203.0.113.0/25`, `30080`."""
    parts: list[str] = []
    for part in key:
        if isinstance(part, Protocol):
            parts.append(f"{part.lower()}:")
        elif parts and parts[-1].endswith(":") and isinstance(part, int):
            parts[-1] += str(part)
        else:
            parts.append(_address(part))
    return ",".join(parts)


def _address(part: Address | Network | int) -> str:
    """A network of one address is shown as the address."""
    words = str(part)
    return words.removesuffix("/32") if "." in words else words.removesuffix("/128")


def _input(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
