"""Layout maps: what it is made of, that the first of two claimants wins, and that what is kept between plans changes nothing.

Where packets land is tested with all other modes (test_proxy_behaviour.py, test_agreement.py).
"""

import random
import re
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from netlab import controllers, endpoints, proxy
from netlab.cli.bench import services as bench
from netlab.lab.inputs import read_inputs
from netlab.model import Cluster, Endpoint, EndpointSlice, Key, Meta, ServicePort, ServiceType
from netlab.ops import Ruleset as RulesetOp
from netlab.proxy import nftables, port_blocks
from netlab.proxy.service_ports import PortsByFamily, families, ports_of
from netlab.rendering import nftables as rendering
from netlab.rendering.alike import unlike
from netlab.ruleset import Ruleset
from tests.clusters import without_dns
from tests.proxy_support import (
    NODE,
    OUTSIDE,
    POD,
    cluster,
    dual_stack,
    everything,
    local,
    remote,
    ruleset,
    service,
    slice_of,
    states,
)
from tests.proxy_walk import outcome, packet

MAPS: dict[str, Any] = {"mode": "nftables", "layout": "maps"}
COUNT = 100
ROOT = Path(__file__).parents[1]


def rules(given: Cluster) -> Ruleset:
    return ruleset(nftables.plan(given, given.nodes["node-a"]))


def many() -> Cluster:
    return bench.cluster(bench.WAYS["nftables-maps"], COUNT)


def test_a_service_is_no_chain_and_no_rule() -> None:
    few, more = (bench.ruleset(bench.cluster(bench.WAYS["nftables-maps"], count)).tables[0] for count in (1, COUNT))
    assert few.chains == more.chains
    assert [len(one.elements) for one in more.data_maps] == [COUNT]


def test_one_changed_endpoint_is_one_element() -> None:
    before = many()
    text = rendering.text(bench.ruleset(bench.changed(before, 3)), bench.ruleset(before))
    assert [line.split(" { ")[0] for line in text.splitlines()] == [
        "delete element ip kube-proxy endpoints-tcp-2",
        "add element ip kube-proxy endpoints-tcp-2",
    ]
    assert text.count(" . tcp . 80 . ") == 2


CLAIMS: dict[str, tuple[dict[str, Any], str, str, int]] = {
    "one load-balancer IP and port": ({"vips": ("203.0.113.200",)}, OUTSIDE, "203.0.113.200", 80),
    "one external IP and port": ({"external_ips": ("192.0.2.33",)}, POD, "192.0.2.33", 80),
    "the ClusterIP of another": ({"external_ips": ("10.96.0.10",)}, POD, "10.96.0.10", 80),
    "one node port": (
        {"type": ServiceType.NODE_PORT, "ports": (ServicePort(80, "http", node_port=30080),)}, OUTSIDE, NODE, 30080,
    ),
    "one load-balancer IP with ranges": (
        {"vips": ("203.0.113.200",), "source_ranges": ("198.51.100.0/24",)}, OUTSIDE, "203.0.113.200", 80,
    ),
}  # fmt: skip


@pytest.mark.parametrize("between", [0, 3 * port_blocks.SERVICES_A_BLOCK], ids=["neighbours", "in other blocks"])
@pytest.mark.parametrize("empty", [(), (0,), (1,), (0, 1)], ids=["both answer", "second", "first", "none"])
@pytest.mark.parametrize("name", CLAIMS)
def test_two_services_with_one_claim_are_as_with_chains(name: str, empty: tuple[int, ...], between: int) -> None:
    fields, source, to, port = CLAIMS[name]
    fillers = [service(f"m-{number:03}", f"10.97.0.{number + 1}") for number in range(between)]
    given = cluster(
        (service("a", "10.96.0.10", **fields), *fillers, service("z", "10.96.0.11", **fields)),
        tuple(
            slice_of(one, local(f"10.244.1.{5 + number}"), remote(f"10.244.2.{5 + number}"))
            for number, one in enumerate("az")
            if number not in empty
        ),
    )
    topology = given.topology
    flat = given.with_(
        topology=replace(topology, cluster=replace(topology.cluster, proxy=replace(topology.cluster.proxy, **MAPS)))
    )
    assert outcome(rules(flat), packet(source, to, port)) == outcome(rules(given), packet(source, to, port))


# ---------------------------------------------------------------- what is kept


def fresh(given: Cluster) -> Ruleset:
    """The rules of someone who remembers nothing: every slice and service is another object, though an equal one."""
    copy = given.with_(
        services={key: replace(one, meta=replace(one.meta)) for key, one in reversed([*given.services.items()])},
        slices={key: replace(one, meta=replace(one.meta)) for key, one in reversed([*given.slices.items()])},
    )
    return next(op.value for op in proxy.plan(copy) if isinstance(op, RulesetOp))


def random_change(given: Cluster, chance: random.Random) -> Cluster:
    keys = list(given.slices)
    key = chance.choice(keys)
    one = given.slices[key]
    match chance.randrange(7):
        case 0:  # another endpoint
            address = ip_address(f"10.160.{chance.randrange(255)}.{chance.randrange(255)}")
            return with_slice(given, replace(one, endpoints=(Endpoint((address,)), *one.endpoints[1:])))
        case 1:  # one more, or none
            more = (*one.endpoints, Endpoint((ip_address(f"10.161.0.{chance.randrange(255)}"),), node_name="node-0"))
            return with_slice(given, replace(one, endpoints=chance.choice((more, ()))))
        case 2:  # it belongs to another Service now
            return with_slice(given, replace(one, service=chance.choice(list(given.services))))
        case 3:  # a second slice comes, in its place in the order or not
            other = Meta(f"{key.name}-{chance.randrange(9)}", "default")
            return given.with_(slices={**given.slices, other.key: replace(one, meta=other)})
        case 4:
            return given.with_(slices={k: v for k, v in given.slices.items() if k != key})
        case 5:  # the Service is left to another proxy, or taken back
            mine = given.services[one.service]
            labels = {} if mine.meta.labels else {"service.kubernetes.io/service-proxy-name": "other"}
            return given.with_(services={**given.services, one.service: replace(mine, meta=replace(mine.meta, labels=labels))})
        case _:
            mine = given.services[one.service]
            ports = (ServicePort(chance.randrange(1, 1000)),)
            return given.with_(services={**given.services, one.service: replace(mine, ports=ports)})


def ports_made_anew(given: Cluster) -> PortsByFamily:
    """What every_port must say, by nothing that is kept."""
    slices, proxied = endpoints.slices_by_service(given), endpoints.proxied_services(given)
    return {
        family: tuple(port for service in proxied for port in ports_of(given, service, family, slices))
        for family in families(given)
    }


def with_slice(given: Cluster, one: EndpointSlice) -> Cluster:
    return given.with_(slices={**given.slices, one.meta.key: one})


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("way", bench.WAYS)
def test_what_is_kept_between_plans_changes_nothing(way: str, seed: int) -> None:
    chance, given = random.Random(seed), bench.cluster(bench.WAYS[way], COUNT)
    bench.ruleset(given)
    for _ in range(12):
        given = random_change(given, chance)
        assert port_blocks.every_port(given) == ports_made_anew(given)
        seen = bench.ruleset(given)
        assert seen == fresh(given)
        bench.ruleset(given)


def test_blocks_without_a_change_are_the_same_objects() -> None:
    before = many()
    old = port_blocks.blocks_of(before).by_family["ip"]
    new = port_blocks.blocks_of(bench.changed(before, 1)).by_family["ip"]
    assert [one is other for one, other in zip(old, new, strict=True)].count(False) == 1


def test_a_change_behind_blocks_that_claim_one_key_is_in_its_place() -> None:
    """Services of the first two blocks have the same external IP: the second's elements are not there, those behind move up."""
    given, address = many(), ip_address("192.0.2.33")
    keys = list(given.services)
    same = {key: replace(given.services[key], external_ips=(address,)) for key in (keys[0], keys[20])}
    given = given.with_(services={**given.services, **same})
    for number in range(3):
        bench.ruleset(given)
        given = bench.changed(given, number)
        assert bench.ruleset(given) == fresh(given)


@pytest.mark.parametrize("fields", [{"external_ips": (ip_address("192.0.2.33"),)}, {"session_affinity": "ClientIP"}], ids=str)
def test_a_service_that_comes_to_claim_more_is_seen(fields: dict[str, Any]) -> None:
    """An address that a Service of another block has already; affinity, which has chains of its own."""
    given = many()
    first, *_, last = given.services
    given = given.with_(
        services={**given.services, first: replace(given.services[first], external_ips=(ip_address("192.0.2.33"),))}
    )
    bench.ruleset(given)
    given = given.with_(services={**given.services, last: replace(given.services[last], **fields)})
    assert bench.ruleset(given) == fresh(given)


def test_a_service_that_is_not_known_brings_no_ports() -> None:
    given = many()
    port_blocks.blocks_of(given)
    key = next(iter(given.slices))
    orphan = with_slice(given, replace(given.slices[key], service=Key("default", "nobody")))
    assert port_blocks.every_port(orphan) == ports_made_anew(orphan)


# ---------------------------------------------------------------- text


def test_a_difference_of_equal_rules_is_empty() -> None:
    for given in (everything(**MAPS), dual_stack(**MAPS)):
        assert rendering.text(rules(given), rules(given.with_(services=dict(given.services)))) == ""


def test_every_state_renders_whole() -> None:
    texts = {name: rendering.text(rules(given)) for name, given in states(**MAPS).items()}
    assert len(set(texts.values())) == len(texts)
    assert "map @endpoints-tcp-2" in texts["everything"] and "map @endpoints" not in texts["nothing"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("", ""), ("abc", "abc"), ("abc", "abxc"), ("aab", "ab"), ("ab", "aab"), ("abc", ""), ("", "abc"), ("abcd", "axyd")],
)
@pytest.mark.parametrize("padding", [0, 255, 256, 257, 600])
def test_unlike_cuts_both_ends_and_nothing_else(old: str, new: str, padding: int) -> None:
    ends = tuple(range(padding))
    before, after = (*ends, *old, *ends), (*ends, *new, *ends)
    one, other = unlike(before, after)
    start = next((i for i, (x, y) in enumerate(zip(before, after, strict=False)) if x != y), min(len(before), len(after)))
    assert before == (*before[:start], *one, *before[start + len(one) :])
    assert after == (*before[:start], *other, *before[start + len(one) :])
    assert len(one) <= len(old) and len(other) <= len(new)


def test_the_page_shows_the_real_rules() -> None:
    """Each block of docs/mode-nftables.md is, line by line, what the plan of its lab has on node-170."""
    topology, objects, _ = read_inputs(str(ROOT / "topologies" / "flat-maps.yaml"), [str(ROOT / "manifests" / "kubia.yaml")])
    given = controllers.initial(without_dns(topology), objects)
    shown = rendering.text(ruleset(nftables.plan(given, given.nodes["node-170"])))
    planned = "\n".join(line.strip() for line in shown.splitlines())
    (page,) = re.findall(r"^```nft\n(.*?)^```", (ROOT / "docs" / "mode-nftables.md").read_text(), re.MULTILINE | re.DOTALL)
    blocks = re.split(r"(?<=^\})\n", page, flags=re.MULTILINE)
    assert len(blocks) > 5
    for block in filter(None, blocks):
        assert "\n".join(line.strip() for line in block.splitlines()) in planned, block
