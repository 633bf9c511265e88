"""What the journal tells of two states, and what `top` makes of counters; both pure."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from netlab import controllers, plan
from netlab.lab import changes
from netlab.lab.journal import REMEMBERED, Journal
from netlab.lab.naming import names_of
from netlab.model import Key
from netlab.observe import top
from tests import explaining


def texts(before: Any, after: Any) -> list[str]:
    return [one["text"] for one in changes.changes(before, after)]


def test_nothing_is_told_of_a_state_that_is_the_same() -> None:
    cluster, _ = explaining.made()
    assert texts(cluster, cluster) == []
    assert texts(cluster, cluster.with_(clock=9.0, serial=99)) == []


def test_a_scaling_is_told_from_the_cause_to_what_follows() -> None:
    cluster, _ = explaining.made()
    after = controllers.scale(cluster, "ReplicationController", Key("default", "kubia"), 1)
    told = list(changes.changes(cluster, after))
    assert [one["type"] for one in told] == ["object", "object", "object", "endpoints"]
    assert told[0]["text"] == "ReplicationController default/kubia changed: replicas"
    assert {one["action"] for one in told[1:3]} == {"removed"} and {one["kind"] for one in told[1:3]} == {"Pod"}
    assert told[3]["ready"] == 1 and len(told[3]["removed"]) == 2 and told[3]["added"] == []
    back = list(changes.changes(after, cluster))
    assert back[-1]["ready"] == 3 and len(back[-1]["added"]) == 2


def test_readiness_faults_and_new_objects_are_told() -> None:
    cluster, _ = explaining.made()
    key = next(key for key in cluster.pods if key.name.startswith("kubia"))
    sick = controllers.pod_status(cluster, key, ready=False, message="its probe failed")
    assert f"Pod default/{key.name} changed: not ready, its probe failed" in texts(cluster, sick)
    down = cluster.with_(links_down=frozenset({("lan/lan", "n-node-171")}))
    assert texts(cluster, down) == ["n-node-171 of lan/lan is set down"]
    assert texts(down, cluster) == ["n-node-171 of lan/lan is up again"]
    gone = controllers.delete(cluster, "Service", Key("default", "kubia"), "background")
    assert "Service default/kubia removed" in texts(cluster, gone) and "added: 10.96" in "".join(texts(gone, cluster))


def test_rules_are_told_with_their_counts() -> None:
    cluster, planned = explaining.made()
    gone = plan.build(controllers.delete(cluster, "Service", Key("default", "kubia"), "background"))
    told = list(changes.rules(plan.diff(planned, gone), 0.012))
    assert {one["where"] for one in told} == {"node/node-170", "node/node-171"}
    assert all(one["rules"] < one["rules_before"] and "loaded in 12 ms" in one["text"] for one in told)


def test_the_journal_remembers_so_much_and_tells_who_listens() -> None:
    journal = Journal()
    heard: list[Any] = []
    stop = journal.follow(heard.append)
    journal.lab("hello")
    stop()
    for number in range(REMEMBERED + 5):
        journal.lab(str(number))
    assert [one["text"] for one in heard] == ["hello"] and heard[0]["at"] > 0
    assert len(journal.recent(10_000)) == REMEMBERED and [one["text"] for one in journal.recent(1)] == [str(REMEMBERED + 4)]
    assert journal.recent(0) == []
    journal.judged("probe", [{"broken": "would raise, were anybody listening"}])


def connection(source: str, destination: str, port: int, answers: str, packets: tuple[int, int] | None = None) -> dict[str, Any]:
    row = {"protocol": "tcp", "src": source, "dst": destination, "sport": 4000, "dport": port, "reply_src": answers,
           "reply_dst": source, "reply_sport": 8080, "reply_dport": 4000}  # fmt: skip
    return row | ({"packets": packets[0], "reply_packets": packets[1]} if packets else {})


def test_a_connection_counts_for_its_service_and_for_a_pod_on_its_own_node_only() -> None:
    cluster, _ = explaining.made()
    names = names_of(cluster)
    node_of = {str(pod.ref): pod.node for pod in cluster.pods.values()}
    client = next(pod for pod in cluster.pods.values() if pod.meta.name == "client")
    far = next(pod for pod in cluster.pods.values() if pod.node != client.node and pod.meta.name.startswith("kubia"))
    address = str(cluster.services[Key("default", "kubia")].cluster_ips[0])
    source, end = str(client.addresses[0]), str(far.addresses[0])
    asked, plain = connection(source, address, 80, end), connection(source, end, 8080, end)
    here, there = f"node/{client.node}", f"node/{far.node}"
    assert top.owners(here, asked, names, node_of) == [here, "svc/default/kubia", "pod/default/client"]
    assert top.owners(there, plain, names, node_of) == [there, str(far.ref)]
    assert ip_address(end) in far.addresses


def test_rates_are_differences_over_time_and_ended_connections_are_not_forgotten() -> None:
    cluster, _ = explaining.made()
    names, node = names_of(cluster), "node/node-170"
    address = str(cluster.services[Key("default", "kubia")].cluster_ips[0])
    tally = top.Tally()

    def sample(at: float, rows: list[dict[str, Any]]) -> top.Sample:
        found = top.Sample(at, {node: top.Sums(rx=int(at * 10))}, {"svc/default/kubia": top.Sums(dropped=None)}, {})
        top.tallied(found, tally, {node: rows}, names, {})
        return found

    before = sample(10.0, [connection("192.168.0.100", address, 80, "10.244.0.3", (5, 4))])
    tally.event(node, "new", connection("192.168.0.100", address, 80, "10.244.0.3"), names, {})
    tally.event(node, "destroyed", connection("192.168.0.100", address, 80, "10.244.0.3", (7, 6)), names, {})
    found = top.document(sample(12.0, []), before, {"lab": "x", "proxy": "p", "time": "t"})
    (service,), (machine,) = found["services"], found["nodes"]
    assert (service["connections"], service["new_per_s"], service["rx_per_s"], service["tx_per_s"]) == (0, 0.5, 1.0, 1.0)
    assert machine["rx_per_s"] == 10.0 and service["dropped"] is None
    text = top.text(found, 100, 20)
    assert "svc/kubia" in text and text.splitlines()[0].endswith("over 2.0 s") and "    -" in text


def test_a_table_too_long_for_the_terminal_says_how_much_is_missing() -> None:
    pods = [{"name": f"pod/default/p{n}", "connections": n, "new_per_s": 0.0, "rx_per_s": float(n), "tx_per_s": 0.0, "dropped": 0}
            for n in range(300)]  # fmt: skip
    found = {"lab": "x", "proxy": "p", "time": "t", "seconds": 1.0, "nodes": pods[:2], "services": pods[:1], "pods": pods}
    lines = top.text(found, 80, 24).splitlines()
    assert len(lines) <= 24 and all(len(line) <= 80 for line in lines)
    shown = [line for line in lines if line.startswith("pod/p2")]
    assert "pod/p299" in shown[0], "the busiest is first"
    assert any(line.startswith("PODS  (") and "more)" in line for line in lines)
    assert replace(top.Sums(), dropped=None).dropped is None
