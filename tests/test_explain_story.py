"""Stories from hand-made evidence: order, rewriting, ends, owners, and whether the offline trace is found to agree."""

import json
from dataclasses import replace
from ipaddress import ip_address
from itertools import permutations
from typing import Any

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6

from netlab.expect import expect
from netlab.lab import explaining
from netlab.lab.probing import Question
from netlab.model import Cluster, Key, Protocol
from netlab.observe import explain_html, explain_text
from netlab.observe.remedies import Death, remedies
from netlab.plan import Plan
from netlab.probes import agreement, packets, plain, story, suspects
from netlab.probes.planned_rules import PlannedRules
from netlab.probes.stamps import order
from netlab.probes.story_parts import best_route
from netlab.probes.witnessed import Sighting, Witnessed
from netlab.targets import Destination
from netlab.trace import Tracer
from tests import explaining as made

PACKET = made.shown("10.0.0.1", "10.0.0.2", 1, 2)


def document(cluster: Cluster, plan: Plan, seen: Witnessed) -> dict[str, Any]:
    """The whole document, as `explain` answers it."""
    flow = seen.flow
    to = Destination(flow.destination, flow.port, flow.protocol, f"{flow.destination}:{flow.port}/tcp")
    outcome = Tracer(plan).trace(flow).outcome
    asked = Question(flow.sender, to, flow, 1, 0.3, expect(cluster, flow), outcome)
    return explaining.document(cluster, plan, asked, made.CLIENT, seen)[0]


# ---------------------------------------------------------------- order


def test_one_stamp_at_several_interfaces_is_put_in_the_order_of_the_way() -> None:
    way = [
        Sighting(5, "a", "eth0", True, "request", PACKET),
        Sighting(5, "n", "veth0", False, "request", PACKET, port=True),
        Sighting(5, "n", "cni0", False, "request", PACKET, bridge=True),
    ]
    out = [
        Sighting(7, "n", "cni0", True, "request", PACKET, bridge=True),
        Sighting(7, "n", "veth1", True, "request", PACKET, port=True),
    ]
    from functools import cmp_to_key

    for shuffled in permutations([*way, *out]):
        assert sorted(shuffled, key=cmp_to_key(order)) == [*way, *out]


def test_a_flooded_copy_is_no_part_of_the_way() -> None:
    cluster, plan, seen = made.delivered()
    stranger = next(str(pod.ref) for pod in cluster.pods.values() if pod.node == "node-171")
    flooded = Sighting(seen.sightings[3].at + 1, stranger, "eth0", False, "request", PACKET, foreign=True)
    noisy = replace(seen, sightings=(*seen.sightings[:4], flooded, *seen.sightings[4:]))
    told = story.tell(noisy, plan, made.CLIENT)
    assert stranger not in {event["netns"] for event in told.hops}
    assert [stay.netns for stay in told.stays] == [stay.netns for stay in story.tell(seen, plan, made.CLIENT).stays]


# ---------------------------------------------------------------- what is told


def test_a_delivered_packet_with_its_rewriting_and_its_answer() -> None:
    _cluster, plan, seen = made.delivered()
    told = story.tell(seen, plan, made.CLIENT)
    words = [event["event"] for event in told.hops if event["netns"] == "node/node-170" and event["event"] != "rule"]
    assert words == ["received", "received", "nat", "route", "sent", "sent"]
    rules = [event for event in told.hops if event["event"] == "rule"]
    assert [rule["chain"][:8] for rule in rules] == ["PREROUTI", "KUBE-SER", "KUBE-SVC", "KUBE-SEP"]
    assert [rule["owner"] for rule in rules] == [None, *["svc/default/kubia"] * 3]
    assert all(rule["decisive"] for rule in rules)
    assert told.outcome == "delivered" and told.hops[-1]["event"] == "delivered"
    assert told.nat is not None and told.nat["kinds"] == ["dnat"] and told.nat["at"] == ["node/node-170"]
    assert told.choice is not None and told.choice["backends"] == 3
    undone = [event for event in told.reply if event["event"] == "nat"]
    assert [(event["half"], event["undone"]) for event in undone] == [("source", True)]
    assert all(event["evidence"] for event in (*told.hops, *told.reply))


def test_a_rejected_packet_names_the_rule_and_its_owner() -> None:
    cluster, plan, seen = made.refused()
    answer = document(cluster, plan, seen)
    end = answer["hops"][-1]
    assert (answer["verdict"], answer["outcome"], end["event"]) == ("pass", "rejected", "rejected")
    assert (end["table"], end["chain"], end["position"], end["owner"]) == ("filter", "KUBE-SERVICES", 0, "svc/default/nobody")
    assert "no pod in namespace default has the labels app=nobody" in answer["remedies"][0]
    assert answer["trace_agrees"], answer["disagreements"]


def test_silence_is_dropped_and_says_where() -> None:
    _cluster, plan, seen = made.delivered()
    cut = replace(seen, sightings=seen.sightings[:5], accepted=())
    told = story.tell(cut, plan, made.CLIENT)
    assert told.outcome == "dropped"
    assert "lost behind node/node-170" in told.where


def test_an_answer_that_does_not_come_back_is_dropped() -> None:
    _cluster, plan, seen = made.delivered()
    lost = replace(seen, sightings=seen.sightings[:8], accepted=seen.accepted[:1])
    told = story.tell(lost, plan, made.CLIENT)
    assert told.outcome == "dropped" and told.where.endswith(
        "node-170 took it in and did not pass it on; no rule, route or setting that netlab knows of says so"
    )


def test_an_answer_from_a_stranger_is_none() -> None:
    _cluster, plan, seen = made.delivered()
    netns, part, packet = seen.accepted[1]
    wrong = replace(seen, accepted=(seen.accepted[0], (netns, part, packet._replace(src="10.244.0.99"))))
    assert story.tell(wrong, plan, made.CLIENT).outcome == "dropped"


def test_an_answer_to_a_borrowed_address_counts_where_it_gets_to() -> None:
    _, plan, seen = made.delivered()
    _netns, part, packet = seen.accepted[1]
    elsewhere = replace(seen, accepted=(seen.accepted[0], ("pod/default/owner", part, packet)))
    assert story.tell(elsewhere, plan, made.CLIENT, source=story.Source.ANOTHERS).outcome == "delivered"
    lost = replace(seen, accepted=seen.accepted[:1], sightings=seen.sightings[:-1])
    assert story.tell(lost, plan, made.CLIENT, source=story.Source.ANOTHERS).outcome == "dropped"
    assert story.tell(lost, plan, made.CLIENT, source=story.Source.NOBODYS).outcome == "delivered", "there was an answer"
    silent = replace(lost, sightings=tuple(one for one in lost.sightings if one.part == "request"))
    assert story.tell(silent, plan, made.CLIENT, source=story.Source.NOBODYS).outcome == "dropped"


@pytest.mark.parametrize(
    ("destination", "wanted"), [("10.244.0.9", "10.244.0.0/24"), ("10.244.7.9", "10.244.0.0/16"), ("8.8.8.8", "default")]
)
def test_the_longest_prefix_is_the_route(destination: str, wanted: str) -> None:
    rows: list[dict[str, Any]] = [{"dst": "default"}, {"dst": "10.244.0.0/16"}, {"dst": "10.244.0.0/24", "metric": 5}]
    found = best_route(rows, destination)
    assert found is not None and found["dst"] == wanted
    assert best_route([{"dst": "10.0.0.0/8"}], "8.8.8.8") is None


# ---------------------------------------------------------------- agreement


def differences(cluster: Cluster, plan: Plan, seen: Witnessed) -> tuple[str, ...]:
    told = story.tell(seen, plan, made.CLIENT)
    return agreement.compare(Tracer(plan).trace(seen.flow), told, seen, PlannedRules(plan)).differences


def test_what_the_plan_foretold_agrees() -> None:
    cluster, plan, seen = made.delivered()
    assert differences(cluster, plan, seen) == ()


def test_a_rule_that_did_not_run_is_a_difference() -> None:
    cluster, plan, seen = made.delivered()
    found = differences(cluster, plan, replace(seen, rules=seen.rules[:-1]))
    assert any("the kernel did not run it" in one for one in found)


def test_a_rule_that_is_not_planned_is_a_difference() -> None:
    cluster, plan, seen = made.refused("-A KUBE-SERVICES -j DROP")
    assert any("not planned: -A KUBE-SERVICES -j DROP" in one for one in differences(cluster, plan, seen))
    answer = document(cluster, plan, seen)
    assert answer["verdict"] == "fail" and "netlab verify" in answer["remedies"][0]


def test_another_endpoint_than_any_planned_is_a_difference() -> None:
    cluster, plan, seen = made.delivered()
    netns, part, packet = seen.accepted[0]
    wrong = replace(seen, accepted=((netns, part, packet._replace(dport=9)), seen.accepted[1]))
    wrong = replace(wrong, sightings=tuple(
        replace(one, packet=one.packet._replace(dport=9)) if one.packet.dport == 8080 else one for one in wrong.sightings
    ))  # fmt: skip
    assert any("expects it to end at" in one for one in differences(cluster, plan, wrong))


def test_a_lost_packet_that_should_have_arrived_fails() -> None:
    cluster, plan, seen = made.delivered()
    answer = document(cluster, plan, replace(seen, sightings=seen.sightings[:5], accepted=()))
    assert answer["verdict"] == "fail" and not answer["trace_agrees"]


def test_what_could_not_be_seen_is_inconclusive() -> None:
    cluster, plan, seen = made.delivered()
    answer = document(cluster, plan, replace(seen, blind=("node/node-171 cannot be watched",)))
    assert answer["verdict"] == "inconclusive"


# ---------------------------------------------------------------- packets and advice


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP, Protocol.ICMP])
def test_packets_are_those_that_scapy_builds(protocol: Protocol) -> None:
    cluster, _ = made.made()
    flow = replace(made.flow(cluster, "10.96.0.10", 0 if protocol is Protocol.ICMP else 53, 23456), protocol=protocol)
    wanted = packets.scapy_packet(0x4E4C, protocol, flow.source, flow.destination, flow.port, 7, 23456)  # type: ignore[arg-type]  # IPv4
    assert plain.packet(0x4E4C, protocol, flow.source, flow.destination, flow.port, 7, 23456) == bytes(wanted)


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP, Protocol.ICMP])
def test_packets_of_ipv6_are_those_that_scapy_builds(protocol: Protocol) -> None:
    source, target = ip_address("fd00:10::2"), ip_address("fd00:20::3")
    ip = IPv6(src=str(source), dst=str(target))
    match protocol:
        case Protocol.TCP:
            v6 = TCP(sport=23456, dport=53, flags="S", seq=0x4E4C << 16 | 7, window=64240, options=[("MSS", 1460)])
        case Protocol.UDP:
            v6 = UDP(sport=23456, dport=53) / plain.payload(0x4E4C, 7)
        case _:
            v6 = ICMPv6EchoRequest(id=23456, seq=7, data=plain.payload(0x4E4C, 7))
    assert plain.packet(0x4E4C, protocol, source, target, 53, 7, 23456) == bytes(ip / v6)


@pytest.mark.parametrize(
    ("to", "port", "netns", "words"),
    [
        ("kubia", 81, "node/node-170", "port 81/TCP is not declared"),
        ("10.96.77.77", 80, "router/router", "no Service has it"),
        ("10.244.0.200", 80, "node/node-170", "no pod has it"),
        ("192.168.0.171", 31000, "node/node-171", "the node ports are 30123"),
        ("10.96.77.77", 80, "router/router", "the sender needs a route to a node"),
        ("kubia", 80, "router/router", "the sender needs a route to a node"),
        ("203.0.113.9", 80, "router/router", "nobody in the lab has 203.0.113.9"),
    ],
)
def test_advice(to: str, port: int, netns: str, words: str) -> None:
    cluster, _ = made.made()
    known = {one.meta.name: str(one.cluster_ips[0]) for one in cluster.services.values()}
    flow = made.flow(cluster, known.get(to, to), port)
    death = Death(netns, "dropped", True, True, False, flow.destination, port)
    assert any(words in one for one in remedies(cluster, flow, death)), remedies(cluster, flow, death)


def test_a_ping_to_a_service_is_told_that_services_have_none() -> None:
    cluster, _ = made.made()
    address = str(cluster.services[Key("default", "kubia")].cluster_ips[0])
    flow = replace(made.flow(cluster, address, 0), protocol=Protocol.ICMP)
    death = Death("router/router", "dropped", False, True, False, flow.destination, 0)
    assert remedies(cluster, flow, death) == (
        f"{address} is svc/default/kubia's: Services have no ICMP, only pods, nodes and hosts answer it",
    )


@pytest.mark.parametrize(
    ("device", "back", "settings", "words"),
    [
        (
            "eth0",
            "cni0",
            {"net/ipv4/conf/eth0/rp_filter": "1"},
            "net.ipv4.conf.eth0.rp_filter is 1, and the route back to 10.0.0.1 is",
        ),
        ("eth0", "cni0", {"net/ipv4/conf/all/rp_filter": "1"}, "net.ipv4.conf.all.rp_filter is 1"),
        ("eth0", "eth0", {"net/ipv4/conf/eth0/rp_filter": "1"}, ""),
        ("eth0", "cni0", {"net/ipv4/conf/eth0/rp_filter": "2", "net/ipv4/conf/all/rp_filter": "1"}, ""),
        ("eth0", "", {"net/ipv4/conf/eth0/rp_filter": "2"}, "no route leads back to 10.0.0.1"),
        ("eth0", "", {"net/ipv4/conf/eth0/rp_filter": "0"}, ""),
        ("eth0", "eth0", {"net/ipv4/ip_forward": "0"}, "net.ipv4.ip_forward is 0"),
        ("eth0", "eth0", {"untraced tables": "netdev/a bridge/b"}, "netdev a, bridge b"),
        ("eth0", "eth0", {}, ""),
    ],
)
def test_silent_drops_are_suspected_only_where_settings_say_so(
    device: str, back: str, settings: dict[str, str], words: str
) -> None:
    routes = [{"dst": "10.0.0.0/24", "dev": back}] if back else []
    found = suspects.suspicion("node/a", PACKET, device, settings, routes, mine=False)
    assert (words in found) if words else found == ""
    assert "net.ipv4.ip_forward" not in suspects.suspicion("node/a", PACKET, device, settings, routes, mine=True)


# ---------------------------------------------------------------- shown


def test_text_shows_the_column_and_hides_idle_rules() -> None:
    cluster, plan, seen = made.delivered()
    answer = document(cluster, plan, seen)
    text = explain_text.text(answer)
    assert "\x1b[" not in text and "\x1b[" in explain_text.text(answer, colour=True)
    places = [line.split()[3] for line in text.splitlines() if " µs  " in line]
    assert places[0] == made.CLIENT and places[1] == "node/node-170"
    assert "DELIVERED to pod/default/kubia" in text and "odds 1/3" in text and "the offline trace agrees" in text


def test_mermaid_has_a_participant_for_every_namespace_and_no_semicolon() -> None:
    cluster, plan, seen = made.refused()
    text = explain_text.mermaid(document(cluster, plan, seen))
    assert text.startswith("sequenceDiagram\n") and ";" not in text and "--x" in text
    assert text.count("participant") == 2


def test_the_page_is_self_contained_and_its_steps_are_the_decisive_events() -> None:
    cluster, plan, seen = made.delivered()
    answer = document(cluster, plan, seen)
    page = explain_html.page({**answer, "from": "</script><b>"}, cluster)
    assert "</script><b>" not in page
    addresses = page.replace("http://www.w3.org/2000/svg", "")
    assert "http://" not in addresses and "https://" not in addresses and " src=" not in addresses
    steps = json.loads(page.split('id="steps">')[1].split("</script>")[0])
    shown = [event for event in (*answer["hops"], *answer["reply"]) if event["event"] != "rule" or event["decisive"]]
    assert len(steps) == len(shown) == page.count("<li data-step")
    assert all(step["rests"] for step in steps)
