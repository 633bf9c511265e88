"""Rendered texts without a kernel: what a difference holds and what it leaves alone. tests/live loads them."""

from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations

import pytest

from netlab.model import Protocol
from netlab.proxy import iptables as iptables_mode
from netlab.proxy import nftables as nftables_mode
from netlab.rendering import iptables, nftables
from netlab.ruleset import (
    Chain,
    DestinationPort,
    DnatRandom,
    Drop,
    Jump,
    L4Proto,
    OfVirtualServer,
    Probability,
    RememberSource,
    Rule,
    Ruleset,
    Table,
)
from tests.proxy_support import ruleset, states

IPTABLES = {name: ruleset(iptables_mode.plan(one, one.nodes["node-a"])) for name, one in states(mode="iptables").items()}
NFTABLES = {name: ruleset(nftables_mode.plan(one, one.nodes["node-a"])) for name, one in states(mode="nftables").items()}


def test_nothing_changed_is_no_text() -> None:
    assert all(iptables.text(one, one) == "" for one in IPTABLES.values())
    assert all(nftables.text(one, one) == "" for one in NFTABLES.values())
    equal = replace(NFTABLES["everything"], tables=tuple(map(replace, NFTABLES["everything"].tables)))
    assert nftables.text(equal, NFTABLES["everything"]) == ""


def test_moved_endpoints_leave_dispatch_and_other_services_alone() -> None:
    text = iptables.text(IPTABLES["endpoints moved"], IPTABLES["everything"])
    assert "*filter" not in text and "-A KUBE-SERVICES" not in text and "-F " not in text
    assert "default/plain:http -> 10.244.2.7:8080" in text and "default/dns" not in text
    text = nftables.text(NFTABLES["endpoints moved"], NFTABLES["everything"])
    assert "chain ip kube-proxy services" not in text and "default/dns" not in text
    assert "add element ip kube-proxy service-ips" not in text


@pytest.mark.parametrize("names", list(permutations(IPTABLES, 2)), ids=" to ".join)
def test_stale_chains_are_deleted_after_what_spoke_of_them(names: tuple[str, str]) -> None:
    old, new = (IPTABLES[name] for name in names)
    for table in iptables.text(new, old).split("COMMIT\n"):
        lines = table.splitlines()
        deleted = [line.split()[1] for line in lines if line.startswith("-X")]
        assert not deleted or lines[-1].startswith("-X")
        assert all(f":{name} - [0:0]" in lines for name in deleted), "only an empty chain can be deleted"
        assert not any(f"-j {name}" in line for line in lines for name in deleted)


def test_a_longer_affinity_remakes_its_sets_and_lets_their_chains_go_first() -> None:
    lines = nftables.text(NFTABLES["longer affinity"], NFTABLES["everything"]).splitlines()
    remade = [line.split()[-1] for line in lines if line.startswith("delete set")]
    assert remade
    for name in remade:
        deleted = lines.index(f"delete set ip kube-proxy {name}")
        users = [line.split()[4] for line in lines if line.startswith("add rule") and f"@{name}" in line]
        assert users
        assert all(lines.index(f"flush chain ip kube-proxy {user}") < deleted for user in users)
        assert any(line.startswith(f"add set ip kube-proxy {name} ") for line in lines[deleted:])


def test_a_changed_table_comment_replaces_the_table() -> None:
    old = NFTABLES["everything"]
    new = replace(old, tables=(replace(old.tables[0], comment="other"),))
    assert nftables.text(new, old) == nftables.text(new)


def test_a_table_that_is_gone_is_deleted() -> None:
    assert nftables.text(Ruleset("nftables", ()), NFTABLES["nothing"]) == "delete table ip kube-proxy\n"
    text = iptables.text(Ruleset("iptables", ()), IPTABLES["nothing"])
    assert "-F INPUT" in text and "-X KUBE-SERVICES" in text and "-A" not in text


def test_probability_reads_as_iptables_save_shows_it() -> None:
    rules = [Rule((Probability(1 / n),), (Jump("X"),)) for n in (2, 3, 7)]
    shown = iptables.lines(Ruleset("iptables", (Table("ip", "nat", (Chain("C", tuple(rules)),)),)))["nat"]
    assert [line.split()[-3] for line in shown[1:]] == ["0.50000000000", "0.33333333349", "0.14285714272"]


def test_comments_are_quoted_where_the_tool_does_so() -> None:
    rules = tuple(Rule((), (Drop(),), comment) for comment in ("plain", "a b", 'say "x"'))
    shown = iptables.lines(Ruleset("iptables", (Table("ip", "nat", (Chain("C", rules),)),)))["nat"]
    assert [line.split("--comment ")[1] for line in shown[1:]] == ["plain -j DROP", '"a b" -j DROP', '"say \\"x\\"" -j DROP']


def test_a_dialect_refuses_what_it_cannot_say() -> None:
    spread = Rule((L4Proto(Protocol.TCP), DestinationPort(80)), (DnatRandom(()),))
    with pytest.raises(AssertionError):
        iptables.text(Ruleset("iptables", (Table("ip", "nat", (Chain("C", (spread,)),)),)))
    of_ipvs = OfVirtualServer(ip_address("10.96.0.10"), Protocol.TCP, 80)
    for rule in (Rule((Probability(0.5),), ()), Rule((), (RememberSource("x"),)), Rule((of_ipvs,), (Drop(),))):
        with pytest.raises(AssertionError):
            nftables.text(Ruleset("nftables", (Table("ip", "t", (Chain("C", (rule,)),)),)))
