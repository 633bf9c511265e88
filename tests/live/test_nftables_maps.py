"""Mode nftables, `layout: maps`, in the kernel: the verdict table, a selection of the cases, changes from one state to another.

Judged by the same words as the other modes (test_spec.py). The selection has one case of each kind of element.
"""

from itertools import permutations
from pathlib import Path

import pytest

from netlab.rendering import nftables
from tests import spec
from tests.live.test_rendering_live import WAYS, in_namespace, listed, need, nftables_rules
from tests.live.test_spec import SETTINGS, STEPPED, changed, check, probe, start, take
from tests.proxy_support import dual_stack, states

CASES = {case.id: case for case in spec.load_cases()}
SINGLE = [case for case in CASES.values() if case.single]
SELECTION = [case for number, case in enumerate(SINGLE) if number % 5 == 0 or case.packets[0]["proto"] != "TCP"]
"""Every fifth, and all that are not TCP: nft once made TCP-only rules of them, which the trace cannot know."""
STICKY = [
    case
    for case in STEPPED
    if any("sessionAffinity" in one for one in case.services) and not any("sleep_between_s" in step for step in case.steps)
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_verdict_table(setting: str, tmp_path: Path) -> None:
    cases = [case for case in spec.load_verdicts() if case.id.split("/")[0] == setting]
    with start(cases[0], spec.MAPS, tmp_path) as lab:
        for case in cases:
            check(probe(lab, case, case.packets[0]), case, case.steps[0], spec.MAPS)


@pytest.mark.parametrize("case", SELECTION, ids=lambda case: case.id)
def test_case(case: spec.Case, tmp_path: Path) -> None:
    with start(case, spec.MAPS, tmp_path) as lab:
        check(probe(lab, case, case.packets[0]), case, case.steps[0], spec.MAPS)


@pytest.mark.parametrize("case", STICKY, ids=lambda case: case.id)
def test_clients_stay_with_their_endpoint(case: spec.Case, tmp_path: Path) -> None:
    with start(case, spec.MAPS, tmp_path) as lab:
        remembered = ""
        for step in case.steps:
            remembered = take(lab, case, step, spec.MAPS, remembered)
            case = changed(lab, case, step, remembered)


def test_difference_ends_where_the_whole_text_does(tmp_path: Path) -> None:
    nft = need("nft")
    every = {**states(mode="nftables", layout="maps"), "dual stack": dual_stack(mode="nftables", layout="maps")}
    rules = {name: nftables_rules(cluster) for name, cluster in every.items()}
    load, show = [nft, "-f", "-"], ([nft, "list", "ruleset"], "")
    commands = [command for one in rules.values() for command in ((load, "flush ruleset\n" + nftables.text(one)), show)]
    whole = dict(zip(rules, map(listed, in_namespace(WAYS[-1], commands, tmp_path)[1::2]), strict=True))
    assert len({str(one) for one in whole.values()}) == len(rules), "the examples differ"
    pairs = list(permutations(rules, 2))
    commands = []
    for old, new in pairs:
        commands += [(load, "flush ruleset\n" + nftables.text(rules[old])), (load, nftables.text(rules[new], rules[old])), show]
    shown = in_namespace(WAYS[-1], commands, tmp_path)[2::3]
    for (old, new), text in zip(pairs, shown, strict=True):
        assert listed(text) == whole[new], nftables.text(rules[new], rules[old])
