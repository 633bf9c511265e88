"""The lab's graph: what is in it, what is collapsed, and that each format is well formed."""

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from netlab import controllers
from netlab.cli import drawing
from netlab.lab.inputs import read_inputs
from netlab.model import Cluster, FrozenDict, Key, Ref
from netlab.observe import graph, graph_html, graph_svg, graph_words
from tests import clusters, explaining


def many(nodes: int = 12, each: int = 25) -> Cluster:
    """Three hundred pods of two owners."""
    pods = []
    for node in range(nodes):
        for number in range(each):
            owner = "web" if number < each - 5 else "db"
            pod = clusters.pod(f"{owner}-{node}-{number}", f"node-{169 + node}", f"10.244.{node}.{number + 2}", 8080)
            meta = replace(pod.meta, owner=Ref("replicaset", "default", owner), labels=FrozenDict(app=owner))
            pods.append(replace(pod, meta=meta, ready=number != 3))
    return clusters.cluster(pods, [clusters.service("web", "10.96.0.80", (80, 8080))], nodes=nodes)


def test_everything_of_a_small_lab_is_in_it() -> None:
    cluster, _ = explaining.made()
    found = graph.graph(cluster)
    assert [lan.name for lan in found.lans] == ["lan"] and found.lans[0].router == "192.168.0.1"
    assert [host.netns for host in found.hosts] == ["host/client"]
    assert sum(len(node.pods) for node in found.nodes) == len(cluster.pods)
    (service,) = found.services
    assert (service.name, service.ready, service.endpoints) == ("kubia", 3, 3)
    assert service.policies == ("externalTrafficPolicy: Cluster",)
    marked = [pod.name for node in found.nodes for pod in node.pods if service.number in pod.services]
    assert len(marked) == 3 and all(name.startswith("kubia") for name in marked)


def test_many_pods_are_shown_by_owner_and_none_is_lost() -> None:
    cluster = many()
    found = graph.graph(cluster)
    assert all([pod.count for pod in node.pods] == [20, 5] for node in found.nodes)
    assert sum(pod.count for node in found.nodes for pod in node.pods) == 300
    assert [(pod.ready_count, pod.ready) for pod in found.nodes[0].pods] == [(19, False), (5, True)]
    assert sum(len(node.pods) for node in graph.graph(cluster, collapse=1000).nodes) == 300
    kept = graph.graph(cluster, always=frozenset({"pod/default/web-0-7"}))
    assert "pod/default/web-0-7" in [pod.netns for pod in kept.nodes[0].pods]


@pytest.mark.parametrize("size", ["small", "large"])
def test_the_drawing_is_well_formed_and_nothing_overlaps(size: str) -> None:
    cluster = explaining.made()[0] if size == "small" else many()
    found = graph.graph(cluster, 1000)
    layout = graph_svg.draw(found)
    ElementTree.fromstring(graph_svg.svg(found))
    pods = [spot for name, spot in layout.places.items() if name.startswith("pod/")]
    assert len(pods) == len(cluster.pods)
    for kind in ("pod/", "node/"):
        spots = [spot for name, spot in layout.places.items() if name.startswith(kind)]
        for number, one in enumerate(spots):
            for other in spots[number + 1 :]:
                apart = (
                    one.x + one.w <= other.x
                    or other.x + other.w <= one.x
                    or one.y + one.h <= other.y
                    or other.y + other.h <= one.y
                )
                assert apart, (one, other)
    assert all(spot.x + spot.w <= layout.width and spot.y + spot.h <= layout.height for spot in layout.places.values())


def both_families() -> Cluster:
    topology, objects, _ = read_inputs("topologies/dual-stack.yaml", ["manifests/dual-stack.yaml"])
    return controllers.initial(topology, objects)


def test_both_families_are_in_it_and_a_pod_is_one_endpoint() -> None:
    found = graph.graph(both_families())
    svg, mermaid, dot = graph_svg.svg(found), graph_words.mermaid(found), graph_words.dot(found)
    for drawn in (svg, mermaid, dot):
        for address in ("fd00:192:168::/64", "fd00:192:168::1", "fd00:192:168::10", "fd00:10:244::/64", "fd00:10:244:1::/64"):
            assert address in drawn, address
    prefer = next(one for one in found.services if one.name == "prefer")
    assert (prefer.addresses, prefer.ready, prefer.endpoints) == (("10.96.1.2", "fd00:10:96::101"), 2, 2)


def test_the_pods_of_the_dns_are_counted_apart() -> None:
    cluster = both_families()
    assert "2 nodes, 3 pods, proxy" in graph.graph(cluster).title
    topology, objects, _ = read_inputs("topologies/two-node.yaml", ["manifests/kubia.yaml"])
    assert "4 pods and 2 of the DNS, proxy" in graph.graph(controllers.initial(topology, objects)).title


@pytest.mark.parametrize(
    ("words", "room", "shown"),
    [
        ("kubia", 100, "kubia"),
        ("web-84855b4cf7-z7d8b", 130, "web-8485…-z7d8b"),
        ("payments/checkout-7d7597d655-lxwvw", 130, "…/check…-lxwvw"),
        ("12 x payments/checkout-service-7d7597d655", 150, "12 x …/checkout-se…"),
        ("10.244.0.2, fd00:10:244::2", 60, "10.244…"),
    ],
)
def test_what_tells_pods_apart_is_not_cut_off(words: str, room: float, shown: str) -> None:
    assert graph_svg.named(words, room) == shown and graph_svg.width(shown) <= room


def test_many_nodes_stand_below_one_another() -> None:
    assert graph_words.mermaid(graph.graph(many(4))).startswith("flowchart TB")
    found = graph.graph(many(5))
    assert graph_words.mermaid(found).startswith("flowchart LR") and "rankdir=LR" in graph_words.dot(found)


def test_names_are_escaped() -> None:
    pod = clusters.pod("a<b>&c", "node-169", "10.244.0.2", 8080)
    cluster = clusters.cluster([pod])
    ElementTree.fromstring(graph_svg.svg(graph.graph(cluster)))
    assert "a<b>" not in graph_html.page(graph.graph(cluster))


def test_words_for_other_programs() -> None:
    cluster, _ = explaining.made()
    found = graph.graph(cluster)
    mermaid, dot = graph_words.mermaid(found), graph_words.dot(found)
    assert mermaid.startswith("flowchart TB\n") and mermaid.count("subgraph") == mermaid.count("    end") == 2
    assert mermaid.count("-.->") == dot.count("style=dashed") == 3
    assert dot.count("{") == dot.count("}") and dot.startswith("digraph")


def test_text_collapses_too() -> None:
    text = drawing.draw(many(), collapse=16, services=False)
    assert "20 x web (not ready)" in text and "web-0-7" not in text
    assert "web-0-7" in drawing.draw(many())


def test_policies_are_named_when_they_are_not_the_default() -> None:
    cluster, _ = explaining.made()
    service = replace(cluster.services[Key("default", "kubia")], session_affinity="ClientIP", internal_traffic_policy="Local")
    assert graph.policies(service) == (
        "externalTrafficPolicy: Cluster", "internalTrafficPolicy: Local", "sessionAffinity: ClientIP 10800 s",
    )  # fmt: skip


def test_overlay_daemons_and_translation_are_in_the_picture() -> None:
    from tests import test_bgp, test_load_balancer, test_nat, test_vxlan

    assert graph.graph(test_vxlan.cluster()).nodes[0].bridge == "cni0 10.244.0.0/24; flannel.1 10.244.0.0"
    learned = graph.graph(test_bgp.cluster())
    assert learned.nodes[1].bridge == "cni0 10.244.1.0/24; bird, AS 64514" and "bird, AS 64512" in learned.router
    assert learned.title.endswith("routing bgp")
    translating = graph.graph(test_nat.cluster(test_nat.PLAIN)).router
    assert "translates for lan" in translating and "8080/tcp to 192.168.0.10:30001" in translating
    served = test_load_balancer.cluster(test_load_balancer.BGP, test_load_balancer.service("any"), *test_load_balancer.PODS)
    assert "announced by node-a, node-b, node-c" in graph.graph(served).services[0].policies
