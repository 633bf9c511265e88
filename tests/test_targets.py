"""What people type, and what it means; every mistake says what was probably meant."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from netlab import targets
from netlab.errors import InputError
from netlab.model import (
    Cluster,
    Container,
    ContainerPort,
    Endpoint,
    EndpointSlice,
    Key,
    Meta,
    PodSpec,
    PodTemplate,
    Protocol,
    Ref,
    Selector,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
    Workload,
)  # fmt: skip
from netlab.targets import AddressTarget, NameTarget, ObjectTarget, UrlTarget
from tests import clusters


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pod/client", ObjectTarget("pod", "default", "client")),
        ("po/shop/client", ObjectTarget("pod", "shop", "client")),
        ("pod/client:8080", ObjectTarget("pod", "default", "client", port="8080")),
        ("node/node-170", ObjectTarget("node", "", "node-170")),
        ("host/client", ObjectTarget("host", "", "client")),
        ("rc/kubia@2", ObjectTarget("ReplicationController", "default", "kubia", 2)),
        ("deployment/web", ObjectTarget("Deployment", "default", "web")),
        ("svc/web:http", ObjectTarget("svc", "default", "web", port="http")),
        ("10.96.0.80", AddressTarget(ip_address("10.96.0.80"))),
        ("10.96.0.80:80", AddressTarget(ip_address("10.96.0.80"), 80)),
        ("fd00::1", AddressTarget(ip_address("fd00::1"))),
        ("[fd00::1]:80", AddressTarget(ip_address("fd00::1"), 80)),
        ("web", NameTarget("web")),
        ("web.shop:80", NameTarget("web.shop", "80")),
        ("http://web/healthz", UrlTarget(NameTarget("web", "80"), "/healthz", "web")),
        ("http://10.96.0.80:81", UrlTarget(AddressTarget(ip_address("10.96.0.80"), 81), "/", "10.96.0.80:81")),
    ],
)
def test_parse(text: str, expected: targets.Target) -> None:
    assert targets.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pdo/client", "did you mean"),
        ("pod/", "expected pod/NAME"),
        ("node/a/b", "expected node/NAME"),
        ("pod/client@2", "@N"),
        ("rc/kubia@0", "@N"),
        ("10.96.0.300", "no valid address"),
        ("10.96.0.80:99999", "1-65535"),
        ("we b", "neither an address nor a name"),
        ("https://web", "http://"),
        ("https://web/x", "--cacert CA.crt https://web/x checks the certificate"),
        ("", "empty target"),
    ],
)
def test_parse_refuses(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        targets.parse(text)


def workload(kind: str, name: str, owner: Ref | None = None) -> Workload:
    return Workload(kind, Meta(name, "default", owner=owner), 2, Selector(), PodTemplate(PodSpec(())))  # type: ignore[arg-type]


@pytest.fixture
def cluster() -> Cluster:
    base = clusters.default()
    pods = dict(base.pods)
    for name in ("kubia-a", "kubia-b"):
        pod = pods[clusters.key(name)]
        pods[pod.meta.key] = replace(pod, meta=replace(pod.meta, owner=Ref("ReplicationController", "default", "kubia")))
    pod = pods[clusters.key("kubia-c")]
    pods[pod.meta.key] = replace(pod, meta=replace(pod.meta, owner=Ref("replicaset", "default", "web-5d")))
    made = [
        workload("ReplicationController", "kubia"),
        workload("Deployment", "web"),
        workload("ReplicaSet", "web-5d", Ref("deployment", "default", "web")),
        workload("Deployment", "idle"),
    ]
    shop = Service(
        Meta("web", "shop"),
        cluster_ips=(ip_address("10.96.0.99"),),
        ports=(ServicePort(53, "dns", Protocol.UDP), ServicePort(80, "http"), ServicePort(443, "https")),
    )
    headless = Service(Meta("db", "default"), headless=True, ports=(ServicePort(5432),))
    outside = Service(Meta("ext", "default"), ServiceType.EXTERNAL_NAME, external_name="example.org")
    endpoint = Endpoint((ip_address("10.244.2.2"),), ready=True)
    slice_ = EndpointSlice(Meta("db-1", "default"), Key("default", "db"), endpoints=(endpoint,), ports=(SlicePort("", 5432),))
    services = {**base.services, **{s.meta.key: s for s in (shop, headless, outside)}}
    workloads = {(w.kind, w.meta.key): w for w in made}
    return base.with_(pods=pods, workloads=workloads, services=services, slices={slice_.meta.key: slice_})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pod/client", "pod/default/client"),
        ("node/node-170", "node/node-170"),
        ("host/client", "host/client"),
        ("rc/kubia", "pod/default/kubia-a"),
        ("rc/kubia@2", "pod/default/kubia-b"),
        ("deploy/web", "pod/default/kubia-c"),
        ("rs/web-5d", "pod/default/kubia-c"),
    ],
)
def test_senders(cluster: Cluster, text: str, expected: str) -> None:
    assert str(targets.resolve_sender(cluster, text)) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pod/cleint", "did you mean client"),
        ("pod/shop/client", "did you mean pod/default/client"),
        ("node/node-190", "did you mean node-1"),
        ("host/clint", "did you mean client"),
        ("deploy/wep", "did you mean web"),
        ("deploy/idle", "no pods"),
        ("rc/kubia@3", "has 2 pods"),
        ("svc/kubia", "cannot send"),
        ("10.0.0.1", "a sender is"),
    ],
)
def test_unknown_senders(cluster: Cluster, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        targets.resolve_sender(cluster, text)


@pytest.mark.parametrize(
    ("text", "protocol", "expected"),
    [
        ("svc/kubia", None, "10.96.0.80:80/tcp"),
        ("svc/kubia:81", None, "10.96.0.80:81/tcp"),
        ("svc/shop/web", None, "10.96.0.99:53/udp"),
        ("svc/shop/web", Protocol.TCP, "10.96.0.99:80/tcp"),
        ("svc/shop/web:https", None, "10.96.0.99:443/tcp"),
        ("svc/kubia", Protocol.ICMP, "10.96.0.80/icmp"),
        ("svc/db", None, "10.244.2.2:5432/tcp"),
        ("kubia", None, "10.96.0.80:80/tcp"),
        ("kubia.default.svc.cluster.local.", None, "10.96.0.80:80/tcp"),
        ("web.shop:http", None, "10.96.0.99:80/tcp"),
        ("web.shop.svc:53", None, "10.96.0.99:53/udp"),
        ("10.96.0.80:80", None, "10.96.0.80:80/tcp"),
        ("10.96.0.80:80", Protocol.UDP, "10.96.0.80:80/udp"),
        ("10.244.1.3", None, "10.244.1.3/icmp"),
        ("pod/kubia-a", None, "10.244.1.3:8080/tcp"),
        ("pod/kubia-a", Protocol.ICMP, "10.244.1.3/icmp"),
        ("pod/client", None, "10.244.1.2/icmp"),
        ("pod/client:5", None, "10.244.1.2:5/tcp"),
        ("node/node-170:30001", None, "192.168.0.170:30001/tcp"),
        ("host/client", None, "192.168.0.100/icmp"),
        ("http://kubia/x", None, "10.96.0.80:80/tcp"),
    ],
)
def test_destinations(cluster: Cluster, text: str, protocol: Protocol | None, expected: str) -> None:
    assert targets.resolve_destination(cluster, text, protocol=protocol).label == expected


def test_short_names_are_looked_up_in_the_senders_namespace(cluster: Cluster) -> None:
    assert targets.resolve_destination(cluster, "web:80", sender=Ref("pod", "shop", "x")).label == "10.96.0.99:80/tcp"
    with pytest.raises(InputError, match=r"did you mean web\.shop"):
        targets.resolve_destination(cluster, "web:80", sender=Ref("pod", "default", "client"))


def test_named_container_ports(cluster: Cluster) -> None:
    pod = replace(cluster.pods[clusters.key("client")], spec=PodSpec((Container("c", ports=(ContainerPort(8443, "https"),)),)))
    named = cluster.with_(pods={**cluster.pods, pod.meta.key: pod})
    assert targets.resolve_destination(named, "pod/client:https").port == 8443
    with pytest.raises(InputError, match="did you mean https"):
        targets.resolve_destination(named, "pod/client:http")


@pytest.mark.parametrize(
    ("text", "protocol", "says"),
    [
        ("svc/kubai", None, "did you mean kubia"),
        ("svc/web", None, "did you mean svc/shop/web"),
        ("svc/shop/web:htps", None, "did you mean https"),
        ("svc/ext", None, "example.org"),
        ("kubia.defualt", None, r"did you mean kubia\.default"),
        ("10.96.0.80", Protocol.TCP, "needs a port"),
    ],
)
def test_unknown_destinations(cluster: Cluster, text: str, protocol: Protocol | None, says: str) -> None:
    with pytest.raises(InputError, match=says):
        targets.resolve_destination(cluster, text, protocol=protocol)


def test_a_url_keeps_its_host_and_path(cluster: Cluster) -> None:
    found = targets.resolve_destination(cluster, "http://kubia.default:80/healthz")
    assert (found.url_host, found.path) == ("kubia.default:80", "/healthz")


def test_namespaces_of_pods_nodes_and_hosts(cluster: Cluster) -> None:
    pod = replace(cluster.pods[clusters.key("client")], spec=PodSpec((), host_network=True))
    hosted = cluster.with_(pods={**cluster.pods, pod.meta.key: pod})
    assert targets.netns_of(cluster, Ref("pod", "default", "client")) == "pod/default/client"
    assert targets.netns_of(hosted, Ref("pod", "default", "client")) == "node/node-170"
    assert targets.netns_of(cluster, Ref("node", "", "node-170")) == "node/node-170"
    unplaced = cluster.with_(pods={pod.meta.key: replace(pod, node="", message="no node fits")})
    with pytest.raises(InputError, match="no node fits"):
        targets.netns_of(unplaced, Ref("pod", "default", "client"))


@pytest.mark.parametrize(
    ("sender", "destination", "expected"),
    [
        ("pod/client", "10.96.0.80", "10.244.1.2"),
        ("pod/client", "127.0.0.1", "127.0.0.1"),
        ("node/node-170", "10.244.1.3", "10.244.1.1"),
        ("node/node-170", "10.244.2.2", "192.168.0.170"),
        ("node/node-170", "10.96.0.80", "192.168.0.170"),
        ("node/node-170", "192.168.0.170", "192.168.0.170"),
        ("host/client", "10.96.0.80", "192.168.0.100"),
        ("host/client", "8.8.8.8", "192.168.0.100"),
    ],
)
def test_source_addresses(cluster: Cluster, sender: str, destination: str, expected: str) -> None:
    ref = targets.resolve_sender(cluster, sender)
    assert str(targets.source_address(cluster, ref, ip_address(destination))) == expected


def test_an_external_name_in_the_cluster_is_an_alias(cluster: Cluster) -> None:
    for name, meant in (("alias", "web.shop"), ("loop", "loop2.default"), ("loop2", "loop.default")):
        alias = Service(Meta(name, "default"), ServiceType.EXTERNAL_NAME, external_name=f"{meant}.svc.cluster.local.")
        cluster = cluster.with_(services={**cluster.services, alias.meta.key: alias})
    found = targets.resolve_destination(cluster, "alias:http")
    assert (str(found.address), found.port) == ("10.96.0.99", 80)
    for name in ("loop:80", "ext:80"):
        with pytest.raises(InputError, match="outside the lab"):
            targets.resolve_destination(cluster, name)
