"""Names of what conntrack shows as numbers, and the table that `netlab get conntrack` prints."""

from dataclasses import replace
from typing import Any

import pytest

from netlab.cli import kernel_objects
from netlab.lab.naming import named, names_of
from netlab.model import Cluster
from tests import spec


def cluster_of(case_id: str = "hc-01") -> Cluster:
    return spec.cluster_of(next(case for case in spec.load_cases() if case.id == case_id), "iptables")


def row(src: str, dst: str, dport: int, answers: str, back: str, protocol: str = "tcp") -> dict[str, Any]:
    return {
        "protocol": protocol, "state": "ESTABLISHED", "src": src, "sport": 4242, "dst": dst, "dport": dport,
        "reply_src": answers, "reply_sport": 8080, "reply_dst": back, "reply_dport": 4242,
    }  # fmt: skip


@pytest.mark.parametrize(
    "destination, port, protocol, name",
    [
        ("10.96.0.10", 80, "tcp", "svc/default/web:http"),
        ("10.96.0.10", 80, "udp", ""),
        ("10.96.0.10", 81, "tcp", ""),
        ("203.0.113.200", 80, "tcp", "svc/default/web:http"),
        ("192.168.50.10", 30080, "tcp", "svc/default/web:http (node port)"),
        ("192.168.50.10", 30080, "udp", "node/node-a"),
        ("192.168.50.10", 22, "tcp", "node/node-a"),
        ("10.244.2.5", 8080, "tcp", "pod/default/pod-10-244-2-5"),
        ("10.244.2.5", 30080, "tcp", "pod/default/pod-10-244-2-5"),
        ("198.18.0.1", 80, "tcp", ""),
    ],
)
def test_what_was_asked(destination: str, port: int, protocol: str, name: str) -> None:
    names = names_of(cluster_of())
    shown = named(row("203.0.113.50", destination, port, "10.244.1.5", "10.244.1.1", protocol), names)
    assert shown["names"] == {
        "src": "host/client", "dst": name, "reply_src": "pod/default/pod-10-244-1-5", "reply_dst": "node/node-a",
    }  # fmt: skip


def test_a_service_of_another_proxy_is_not_named() -> None:
    cluster = cluster_of()
    label = {"service.kubernetes.io/service-proxy-name": "other"}
    services = {key: replace(one, meta=replace(one.meta, labels=label)) for key, one in cluster.services.items()}
    shown = named(row("203.0.113.50", "10.96.0.10", 80, "10.244.1.5", "203.0.113.50"), names_of(cluster.with_(services=services)))
    assert shown["names"]["dst"] == ""


def test_table() -> None:
    rows = [
        row("203.0.113.50", "10.96.0.10", 80, "10.244.1.5", "10.244.1.1"),
        row("10.244.1.5", "10.244.2.5", 8080, "10.244.2.5", "10.244.1.5"),
    ]
    items = [named(one, names_of(cluster_of())) for one in rows]
    text = kernel_objects.text([{"kind": "Conntrack", "metadata": {"name": "node/node-a"}, "status": {"items": items}}])
    heading, first, second = text.splitlines()
    assert heading.split() == ["TARGET", "PROTOCOL", "STATE", "SOURCE", "DESTINATION", "ANSWERED-BY", "MASQUERADED-AS"]
    assert "203.0.113.50:4242 host/client" in first and "10.96.0.10:80 svc/default/web:http" in first
    assert first.endswith("10.244.1.1:4242 node/node-a")
    assert second.rstrip().endswith("-")
