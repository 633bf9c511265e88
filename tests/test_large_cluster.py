"""kube-proxy's large-cluster mode in mode iptables: above 1,000 endpoints their rules have no comments, and do what they did.

Which rules keep theirs: kubernetes pkg/proxy/iptables/proxier.go, callers of `appendServiceCommentLocked`.
"""

import pickle
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from netlab.model import Cluster, Endpoint
from netlab.proxy import iptables
from netlab.proxy.port_blocks import every_port
from netlab.rendering import iptables as rendering
from netlab.ruleset import Chain, Family, Rule, Ruleset
from tests.proxy_support import NODE, OUTSIDE, POD, cluster, dual_stack, everything, ruleset, service, slice_of
from tests.proxy_walk import outcome, packet

FIRST = ip_address("10.245.0.1")


def rules(given: Cluster) -> Ruleset:
    return ruleset(iptables.plan(given, given.nodes["node-a"]))


def some(count: int, **fields: Any) -> tuple[Endpoint, ...]:
    """So many endpoints of a node that is not looked at."""
    return tuple(Endpoint((FIRST + number,), node_name="node-b", **fields) for number in range(count))


def filled(count: int, base: Cluster | None = None, headless: int = 0, **fields: Any) -> Cluster:
    """One Service of every kind, and one more with as many endpoints as make it `count` IPv4 endpoints in all."""
    base = everything() if base is None else base
    known = sum(len(port.endpoints) for port in every_port(base)["ip"])
    many = service("many", "10.96.1.1")
    apart = replace(service("apart", "10.96.1.2"), cluster_ips=(), headless=True)
    slices = (slice_of("many", *some(count - known, **fields)), slice_of("apart", *some(headless)))
    return base.with_(
        services={**base.services, many.meta.key: many, apart.meta.key: apart},
        slices={**base.slices, **{one.meta.key: one for one in slices}},
    )


def chains(given: Ruleset, family: Family = "ip") -> dict[tuple[str, str], Chain]:
    return {(table.name, chain.name): chain for table in given.tables if table.family == family for chain in table.chains}


def of_endpoint(chain: str, rule: Rule) -> bool:
    """There is one such rule for each endpoint: in its own chain, or leading there."""
    return "KUBE-SEP-" in chain or any("KUBE-SEP-" in str(statement) for statement in rule.statements)


def commented(given: Ruleset, family: Family = "ip") -> tuple[set[bool], set[bool]]:
    """Whether rules of endpoints have a comment, and whether other rules that belong to a Service have (bar plain jumps)."""
    found = [(name, rule) for (_, name), chain in chains(given, family).items() for rule in chain.rules if rule.owner is not None]
    own = {bool(rule.comment) for name, rule in found if of_endpoint(name, rule)}
    return own, {bool(rule.comment) for name, rule in found if not of_endpoint(name, rule) and rule.matches}


def test_up_to_1000_endpoints_every_rule_says_whose_it_is() -> None:
    assert commented(rules(filled(1000))) == ({True}, {True})


def test_beyond_them_only_the_rules_of_endpoints_say_nothing() -> None:
    assert commented(rules(filled(1001))) == ({False}, {True})


def test_what_the_rules_do_and_whose_they_are_is_the_same() -> None:
    below, above = chains(rules(filled(1000))), chains(rules(filled(1001)))
    others = {key for key in below if not any("/many" in rule.comment for rule in below[key].rules)}
    assert len(others) > 40, "all but those of the Service that has one endpoint more"
    for key in others:
        silent = [tuple(replace(rule, comment="") for rule in one[key].rules) for one in (below, above)]
        assert silent[0] == silent[1]


@pytest.mark.parametrize("sender", [POD, NODE, OUTSIDE])
@pytest.mark.parametrize("to", ["10.96.0.10", "10.96.0.11", "10.96.0.15", "203.0.113.200", "203.0.113.201", "192.0.2.33"])
def test_every_packet_goes_where_it_went(sender: str, to: str) -> None:
    below, above = rules(filled(1000)), rules(filled(1001))
    assert outcome(above, packet(sender, to, 80)) == outcome(below, packet(sender, to, 80))


def test_endpoints_that_are_not_ready_count() -> None:
    assert commented(rules(filled(1001, ready=False)))[0] == {False}


def test_endpoints_of_headless_services_do_not_count() -> None:
    assert commented(rules(filled(1000, headless=5)))[0] == {True}


def test_every_port_counts_its_endpoints() -> None:
    """The Service `dns` has two endpoints behind two ports: four."""
    ports = [port for port in every_port(everything())["ip"] if port.front.service.name == "dns"]
    assert sorted(len(port.endpoints) for port in ports) == [0, 2, 2]
    assert commented(rules(filled(1001)))[0] == {False}, "which is one more than 1,000 only if they are four"


def test_families_count_apart() -> None:
    both = rules(filled(1001, dual_stack()))
    assert commented(both, "ip")[0] == {False}
    assert commented(both, "ip6")[0] == {True}


@pytest.mark.parametrize(("before", "after"), [(1000, 1001), (1001, 1000)])
def test_across_the_threshold_every_endpoint_chain_is_written_anew(before: int, after: int) -> None:
    """A real node leaves those of unchanged Services as they are until it syncs fully; a plan knows no past."""
    was, given = rules(filled(before)), filled(after)
    now = rules(given)
    assert now == rules(pickle.loads(pickle.dumps(given))), "nothing of the cluster before shows"
    written = rendering.text(now, was).splitlines()
    for _, name in (key for key in chains(was) if "KUBE-SEP-" in key[1] and key in chains(now)):
        assert sum(line.startswith(f"-A {name} ") for line in written) == 2


def test_a_change_among_many_is_as_small_as_among_few() -> None:
    given = filled(1500)
    one = slice_of("plain", *some(2))
    written = rendering.text(rules(given.with_(slices={**given.slices, one.meta.key: one})), rules(given)).splitlines()
    assert len([line for line in written if line.startswith("-A ")]) < 10


def test_an_empty_cluster_is_small() -> None:
    assert commented(rules(cluster()))[0] == set()


@pytest.mark.parametrize("most", [600, 20_000, 10_000_000])
def test_a_whole_text_in_pieces_is_the_same_rules_in_order(most: int) -> None:
    whole = rendering.text(rules(filled(300)))
    declared, filled_ = rendering.in_pieces(whole, most)
    assert [line for line in declared.splitlines() if line.startswith("-")] == [], "without --noflush, which empties again"

    def of(text: str, table: str) -> list[str]:
        """The lines for one table, whichever transactions they are in."""
        blocks = (block.splitlines() for block in text.split("COMMIT\n")[:-1])
        return [line for block in blocks if block[0] == f"*{table}" for line in block[1:]]

    for table in ("nat", "filter"):
        assert of(declared + filled_, table) == of(whole, table)
        assert len([block for block in declared.split("COMMIT\n") if block.startswith(f"*{table}")]) == 1
    largest = max(len(block.splitlines()) for block in (declared + filled_).split("COMMIT\n"))
    assert largest <= max(2, most // 150 + 1)
