"""Whether the offline trace foretold what the kernel did: the way, the rules, the end. Pure.

Decides which of the trace's branches the packet took (a random choice opens several), and words every difference. What the kernel
does not show (iptables-legacy has no trace) is not compared.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netlab.model import OutcomeKind
from netlab.probes.planned_rules import PlannedRules
from netlab.probes.story import Story
from netlab.probes.story_parts import Stay
from netlab.probes.witnessed import RuleMet, Witnessed
from netlab.trace import Path, Trace
from netlab.trace.packets import Met

ENDS = ("drop", "reject")
RuleId = tuple[str, str, str, str, int]
"""Namespace, hook, table, chain, position."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """`path`: the branch that the packet took, None when it took none of them. `differences`: sentences; () when all agrees."""

    path: Path | None
    differences: tuple[str, ...]


def compare(traced: Trace, story: Story, seen: Witnessed, planned: PlannedRules) -> Agreement:
    """What the offline trace said against what was witnessed."""
    strangers = tuple(_strangers(story, planned))
    found = _compared(traced, story, seen, planned)
    return Agreement(found.path, (*found.differences, *strangers))


def _strangers(story: Story, planned: PlannedRules) -> Iterator[str]:
    """Rules that the packet met and the plan does not have."""
    for stay in story.stays:
        for rule in stay.rules:
            if rule.position >= 0 and planned.find(rule) is None:
                yield f"{rule.netns}: {rule.table} {rule.chain} has a rule that is not planned: {rule.text}"


def _compared(traced: Trace, story: Story, seen: Witnessed, planned: PlannedRules) -> Agreement:
    way = [stay.netns for stay in story.stays if not stay.netns.startswith("lan/")]
    candidates = [path for path in traced.paths if _way(path) == way]
    if not candidates:
        ways = " or ".join(dict.fromkeys(" > ".join(_way(path)) for path in traced.paths))
        return Agreement(None, (f"the offline trace expects the way {ways}; the packet took {' > '.join(way) or 'none'}",))
    last = story.stays[-1].left if story.stays else None
    here = [path for path in candidates if last is None or _end(path) == (last.dst, last.dport)]
    if not here:
        ends = " or ".join(dict.fromkeys("{}:{}".format(*_end(path)) for path in candidates))
        at = f"{last.dst}:{last.dport}" if last else "nowhere"
        return Agreement(None, (f"the offline trace expects it to end at {ends}; it was last addressed to {at}",))
    judged = [(path, tuple(_differences(path, story, seen, planned))) for path in here]
    return Agreement(*min(judged, key=lambda pair: len(pair[1])))


def _way(path: Path) -> list[str]:
    way: list[str] = []
    for hop in path.hops:
        if not way or way[-1] != hop.netns:
            way.append(hop.netns)
    return way


def _end(path: Path) -> tuple[str, int]:
    left = path.hops[-1].left
    return str(left.destination), left.port


def _differences(path: Path, story: Story, seen: Witnessed, planned: PlannedRules) -> list[str]:
    found = []
    if path.kind is not None and _word(path.kind) != story.outcome:
        found.append(f"the offline trace says {_word(path.kind)} ({path.why}); the packet was {story.outcome}")
    found += _devices(path, story.stays)
    traced = set(seen.traced)
    told = [(hop.netns, met) for hop in path.hops for met in hop.met if hop.netns in traced and _tells(met)]
    # What rules of NAT did to the flow's first packet, conntrack does to all others.
    said = [(netns, met) for netns, met in told if netns not in story.remembered or met.did.startswith(ENDS)]
    expected = {_id(netns, met): met for netns, met in said}
    did = {one: rule for stay in story.stays for rule in stay.rules if (one := _kernel_id(rule, planned)) is not None}
    for one, met in expected.items():
        if one not in did:
            found.append(f"the offline trace expects {_named(one)} ({met.did}); the kernel did not run it")
    for one, rule in did.items():
        if one not in expected:
            found.append(f"the kernel ran {_named(one)} ({rule.text or rule.verdict}); the offline trace does not expect it")
    return found


def _word(kind: OutcomeKind) -> str:
    return "dropped" if kind is OutcomeKind.NOT_HANDLED else str(kind)


def _devices(path: Path, stays: Sequence[Stay]) -> list[str]:
    """Interfaces that the packet crossed, between first and last namespace, against the links that the trace took."""
    expected: list[tuple[str, str]] = []
    for hop, following in zip(path.hops, path.hops[1:], strict=False):
        expected += [(hop.netns, hop.out_device), *hop.through, (following.netns, following.in_device)]
    crossed = [(one.netns, one.device) for stay in stays for one in (*stay.arrivals, *stay.departures) if one.device != "lo"]
    wanted = list(dict.fromkeys(end for end in expected if end[1] not in ("", "lo")))
    missing = [end for end in wanted if end not in crossed]
    extra = [end for end in dict.fromkeys(crossed) if end not in wanted]
    found = []
    if missing:
        found.append("the offline trace expects it on " + ", ".join(f"{device} of {netns}" for netns, device in missing))
    if extra and path.kind is not OutcomeKind.DROPPED:
        found.append("the packet was also seen on " + ", ".join(f"{device} of {netns}" for netns, device in extra))
    return found


def _tells(met: Met) -> bool:
    """Whether the note is of something that both sides tell: rewriting, marking, dropping."""
    return met.did.startswith(("destination = ", "source = ", "mark |= ", *ENDS))


def _id(netns: str, met: Met) -> RuleId:
    return netns, str(met.hook), met.table, met.chain, met.rule


def _kernel_id(rule: RuleMet, planned: PlannedRules) -> RuleId | None:
    known, index = planned.find(rule), planned.index(rule)
    if known is None or index is None or not known.effect:
        return None
    return rule.netns, rule.hook, rule.table, rule.chain, index


def _named(one: RuleId) -> str:
    netns, hook, table, chain, position = one
    return f"rule {position + 1} of {table} {chain} at {hook} in {netns}"
