"""Which Services a proxy looks at, and which endpoints a port of one has: rows 1 to 9 of the behaviour table."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from netlab.endpoints import (
    ServiceEndpoint,
    cluster_ip,
    endpoints_of,
    external_ips,
    is_proxied,
    load_balancer_ips,
    proxied_services,
    slices_by_service,
)
from netlab.model import (
    Cluster,
    Endpoint,
    EndpointSlice,
    Key,
    LoadBalancerIngress,
    Meta,
    Protocol,
    Ref,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
    Topology,
)

WEB = Service(Meta("web", "default"), cluster_ips=(ip_address("10.96.0.10"),), ports=(ServicePort(80, "http", target_port=8080),))
HTTP = WEB.ports[0]
HTTP_8080 = (SlicePort("http", 8080),)
POD = Ref("pod", "default", "a")


def endpoint(text: str, **given: Any) -> Endpoint:
    return Endpoint(tuple(map(ip_address, text.split())), **given)


def part(
    name: str, *endpoints: Endpoint, ports: tuple[SlicePort, ...] = (SlicePort("http", 8080),), **given: Any
) -> EndpointSlice:
    return EndpointSlice(Meta(name, "default", **given.pop("meta", {})), Key("default", "web"), "IPv4", endpoints, ports, **given)


def cluster(*slices: EndpointSlice, services: tuple[Service, ...] = (WEB,)) -> Cluster:
    return Cluster(Topology(), services={s.meta.key: s for s in services}, slices={one.meta.key: one for one in slices})


def found(*slices: EndpointSlice, port: ServicePort = HTTP) -> list[str]:
    return [str(endpoint) for endpoint in endpoints_of(cluster(*slices), WEB, port)]


NOT_PROXIED = {
    "headless": replace(WEB, cluster_ips=(), headless=True),
    "headless, whatever else it says": replace(WEB, headless=True),
    "ExternalName, even with a clusterIP": replace(WEB, type=ServiceType.EXTERNAL_NAME),
    "another proxy's": replace(WEB, meta=Meta("web", "default", labels={"service.kubernetes.io/service-proxy-name": ""})),
    "no clusterIP yet": replace(WEB, cluster_ips=()),
}


@pytest.mark.parametrize("name", NOT_PROXIED)
def test_services_that_are_left_alone(name: str) -> None:
    assert not is_proxied(NOT_PROXIED[name])
    assert proxied_services(cluster(services=(NOT_PROXIED[name],))) == ()


def test_services_that_are_proxied_come_in_order() -> None:
    other = replace(WEB, meta=Meta("api", "default"), type=ServiceType.LOAD_BALANCER)
    assert [service.meta.name for service in proxied_services(cluster(services=(WEB, other)))] == ["api", "web"]


def test_addresses_are_of_one_family() -> None:
    dual = replace(
        WEB,
        cluster_ips=(ip_address("fd00::10"), ip_address("10.96.0.10")),
        external_ips=(ip_address("192.0.2.33"), ip_address("2001:db8::33")),
        load_balancer=(
            LoadBalancerIngress(ip_address("203.0.113.1")),
            LoadBalancerIngress(ip_address("203.0.113.2"), ip_mode="VIP"),
            LoadBalancerIngress(ip_address("203.0.113.3"), ip_mode="Proxy"),
            LoadBalancerIngress(hostname="lb.example"),
            LoadBalancerIngress(ip_address("2001:db8::1")),
        ),
    )
    assert str(cluster_ip(dual)) == "10.96.0.10"
    assert str(cluster_ip(dual, "IPv6")) == "fd00::10"
    assert cluster_ip(WEB, "IPv6") is None
    assert list(map(str, external_ips(dual, "IPv6"))) == ["2001:db8::33"]
    assert list(map(str, load_balancer_ips(dual))) == ["203.0.113.1", "203.0.113.2"]
    assert list(map(str, load_balancer_ips(dual, "IPv6"))) == ["2001:db8::1"]


def test_join_is_by_port_name_and_protocol_and_takes_the_slices_number() -> None:
    ports = (SlicePort("http", 9090), SlicePort("http", 53, Protocol.UDP), SlicePort("admin", 1), SlicePort("", 2))
    one = part("web-1", endpoint("10.244.1.5"), ports=ports)
    assert found(one) == ["10.244.1.5:9090"]
    assert found(one, port=ServicePort(80, "http", Protocol.UDP)) == ["10.244.1.5:53"]
    assert found(one, port=ServicePort(80, "", target_port=8080)) == ["10.244.1.5:2"]
    assert found(one, port=ServicePort(80, "https")) == []


IGNORED = {
    "port name absent": part("w", endpoint("10.244.1.5"), ports=(SlicePort(None, 8080),)),
    "port number absent": part("w", endpoint("10.244.1.5"), ports=(SlicePort("http", None),)),
    "port number 0": part("w", endpoint("10.244.1.5"), ports=(SlicePort("http", 0),)),
    "no address": part("w", Endpoint(())),
    "another Service's": replace(part("w", endpoint("10.244.1.5")), service=Key("other", "web")),
    "of the other family": replace(part("w", endpoint("fd00::5")), address_type="IPv6"),
    "of host names": replace(part("w", endpoint("10.244.1.5")), address_type="FQDN"),
    "of a headless Service": part("w", endpoint("10.244.1.5"), meta={"labels": {"service.kubernetes.io/headless": ""}}),
}


@pytest.mark.parametrize("name", IGNORED)
def test_ignored(name: str) -> None:
    assert found(part("z", endpoint("10.244.1.9")), IGNORED[name]) == ["10.244.1.9:8080"]


def test_only_the_first_address_counts() -> None:
    assert found(part("w", endpoint("10.244.1.5 10.244.1.6"))) == ["10.244.1.5:8080"]


def test_absent_conditions_have_defaults_and_present_ones_are_kept() -> None:
    bare, told = endpoints_of(
        cluster(
            part(
                "w",
                endpoint("10.244.1.5"),
                endpoint(
                    "10.244.1.6", ready=False, serving=False, terminating=True, node_name="n", target=POD,
                    zone_hints=("z",), node_hints=("n",),
                ),
            )
        ), WEB, HTTP,
    )  # fmt: skip
    assert bare == ServiceEndpoint(ip_address("10.244.1.5"), 8080, None, True, True, False)
    assert told == ServiceEndpoint(ip_address("10.244.1.6"), 8080, "n", False, False, True, ("z",), ("n",), POD)


def test_ready_is_believed_even_of_one_that_terminates() -> None:
    """publishNotReadyAddresses: the controller writes ready for it."""
    (one,) = endpoints_of(cluster(part("w", endpoint("10.244.1.5", ready=True, terminating=True))), WEB, HTTP)
    assert one.ready
    assert one.terminating


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_in_two_slices_the_copy_that_lives_on_wins(order: tuple[str, str]) -> None:
    leaving = part(order[0], endpoint("10.244.1.5", ready=False, terminating=True))
    staying = part(order[1], endpoint("10.244.1.5", ready=True, terminating=False))
    (one,) = endpoints_of(cluster(leaving, staying), WEB, HTTP)
    assert one.ready
    assert not one.terminating


def test_slices_are_merged_and_sorted_as_text() -> None:
    slices = (
        part("b", endpoint("10.244.1.9"), endpoint("10.244.1.10")),
        part("a", endpoint("10.244.2.5"), endpoint("10.244.1.9")),
    )
    assert found(*slices) == ["10.244.1.10:8080", "10.244.1.9:8080", "10.244.2.5:8080"]


def test_ports_of_different_numbers_are_different_endpoints() -> None:
    slices = (part("a", endpoint("10.244.1.5")), part("b", endpoint("10.244.1.5"), ports=(SlicePort("http", 9090),)))
    assert found(*slices) == ["10.244.1.5:8080", "10.244.1.5:9090"]


def test_ipv6_endpoints_are_written_in_brackets() -> None:
    one = replace(part("w", endpoint("fd00::5")), address_type="IPv6")
    assert [str(e) for e in endpoints_of(cluster(one), WEB, HTTP, "IPv6")] == ["[fd00::5]:8080"]


def test_slices_may_be_looked_up_once_for_many() -> None:
    world = cluster(part("w", endpoint("10.244.1.5")))
    index = slices_by_service(world)
    assert list(index) == [Key("default", "web")]
    assert endpoints_of(world, WEB, HTTP, slices=index) == endpoints_of(world, WEB, HTTP)
    assert endpoints_of(world, WEB, HTTP, slices={}) == ()
