"""A packet's story in a few words: its rewriting as a whole, and the choice between endpoints. Pure."""

from collections.abc import Sequence
from typing import Any

from netlab.probes.planned_rules import PlannedRules
from netlab.probes.story_parts import Stay, as_json


def nat(stays: Sequence[Stay]) -> dict[str, Any] | None:
    """The rewriting as a whole: where, before and after; None when nothing was rewritten."""
    changed = [stay for stay in stays if stay.entered and stay.left and stay.entered != stay.left]
    if not changed:
        return None
    first, last = changed[0].entered, changed[-1].left
    assert first is not None and last is not None
    kinds = [
        *(["dnat"] if (first.dst, first.dport) != (last.dst, last.dport) else []),
        *(["snat"] if (first.src, first.sport) != (last.src, last.sport) else []),
    ]
    return {"at": [stay.netns for stay in changed], "kinds": kinds, "before": as_json(first), "after": as_json(last)}


def choice(stays: Sequence[Stay], planned: PlannedRules) -> dict[str, Any] | None:
    """Between how many endpoints a rule chose, and which rule; odds are added by who knows the plan's."""
    for stay in stays:
        for rule in stay.rules:
            known = planned.find(rule)
            if known is not None and known.choice:
                how = "remembered client (session affinity)" if known.remembered else "at random"
                if known.choice == 1 and not known.remembered:
                    how = "the only endpoint"
                return {
                    "backends": known.choice, "how": how, "at": rule.netns, "chain": rule.chain, "rule": rule.text or None,
                    "owner": str(known.owner) if known.owner else None,
                }  # fmt: skip
    return None
