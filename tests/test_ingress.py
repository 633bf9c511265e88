"""Ingress offline: the oracle against the API's own table, the routes that proxies are told, what they are told, and mistakes."""

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from netlab import controllers, ingresses, manifest, plan
from netlab.errors import InputError
from netlab.expect.http import controller_at, expect_http
from netlab.ingress import haproxy, nginx, table, traefik
from netlab.ingresses import Route, Table, Upstream
from netlab.manifest import Source, topology
from netlab.model import Cluster, IngressConfig, Key
from tests.ingress_cases import CASES, DEFAULT_CASES, Case, all_objects, backends, host_of, ingress

NODE = ip_address("192.168.0.170")


def cluster_of(objects: list[dict[str, Any]], proxy: Any = "haproxy", upstream: Any = "endpoints") -> Cluster:
    default = topology.default_topology()
    config = IngressConfig(proxy, upstream) if proxy else None
    made = replace(default, cluster=replace(default.cluster, ingress=config))
    loaded = manifest.object_from_json({"apiVersion": "v1", "kind": "List", "items": [*backends(), *objects]})
    return controllers.initial(made, loaded.objects)


def answer(cluster: Cluster, host: str, path: str) -> str | int:
    """The Service whose pod must answer, or the status."""
    controller = controller_at(cluster, NODE, 80)
    assert controller is not None
    found = expect_http(cluster, controller, host, path)
    return found.status or found.service.rpartition("/")[2].partition(":")[0]


@pytest.mark.parametrize("cases", [CASES, DEFAULT_CASES], ids=["rules", "default backend"])
def test_the_oracle_says_what_the_api_documents(cases: tuple[Case, ...]) -> None:
    cluster = cluster_of(all_objects(cases))
    wrong = {
        case.name: (found, case.want)
        for number, case in enumerate(cases)
        if (found := answer(cluster, host_of(cases, number), case.path)) != case.want
    }
    assert wrong == {}


def test_nobody_answers_where_no_controller_runs() -> None:
    cluster = cluster_of([ingress(CASES, 0)], proxy=None)
    assert controller_at(cluster, NODE, 80) is None
    assert table.problems(cluster)[0][1].startswith("no Ingress controller runs here")
    assert controller_at(cluster_of([]), NODE, 81) is None


# ---------------------------------------------------------------- the table


def rule(service: str, host: str = "a.example.com", path: str = "/", port: Any = 80, **backend: Any) -> dict[str, Any]:
    given = backend or {"service": {"name": service, "port": {"name" if isinstance(port, str) else "number": port}}}
    return {"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": given}]}}


def an_ingress(name: str, *rules: dict[str, Any], namespace: str = "default", **spec: Any) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": meta, "spec": {"rules": list(rules), **spec}}


def test_the_oldest_of_two_ingresses_has_the_route_and_the_other_is_told() -> None:
    cluster = cluster_of([an_ingress("older", rule("one"))]).with_(clock=5.0)
    newer = manifest.object_from_json(an_ingress("another", rule("two"), rule("two", path="/more"))).objects
    cluster = controllers.apply(cluster, newer)
    routes = table.table(cluster, "haproxy").routes
    assert [(one.path, one.upstream) for one in routes] == [("", "default/one/http"), ("/more", "default/two/http")]
    assert table.problems(cluster) == (
        (Key("default", "another"), "a.example.com/: ingress default/older is older and has it: ignored here"),
    )
    assert answer(cluster, "a.example.com", "/") == "one"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (rule("nobody"), "there is no Service nobody in namespace shop: 503"),
        (
            rule("one"),
            "there is no Service one in namespace shop "
            "(there is one in default: a backend is of the Ingress' own namespace): 503",
        ),
        (rule("", resource={"kind": "Bucket", "name": "b"}), "resource backends are not supported (Bucket/b): 503"),
    ],
)
def test_a_backend_that_is_not_there_is_503_and_said(given: dict[str, Any], said: str) -> None:
    cluster = cluster_of([an_ingress("web", given, namespace="shop")])
    assert table.problems(cluster) == ((Key("shop", "web"), f"a.example.com/: {said}"),)
    assert answer(cluster, "a.example.com", "/") == 503


def test_ports_by_name_and_number_and_wrong_ones() -> None:
    good = cluster_of([an_ingress("web", rule("one", port="http"), rule("one", path="/n", port=80))])
    assert table.problems(good) == ()
    bad = cluster_of([an_ingress("web", rule("one", port="https"))])
    assert table.problems(bad)[0][1] == "a.example.com/: Service one has no port https, it has 80 (http): 503"


def test_upstreams_are_pods_or_the_cluster_ip() -> None:
    cluster = cluster_of([an_ingress("web", rule("one"))])
    pod = cluster.pods[Key("default", "one")]
    assert table.table(cluster, "haproxy").upstreams == (Upstream("default/one/http", ((pod.addresses[0], 8080),)),)
    cluster = cluster_of([an_ingress("web", rule("one"))], upstream="service")
    service = cluster.services[Key("default", "one")]
    assert table.table(cluster, "haproxy").upstreams == (Upstream("default/one/http", ((service.cluster_ips[0], 80),), True),)


CLASS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": "other"},
    "spec": {"controller": "k8s.io/ingress-nginx"},
}


@pytest.mark.parametrize(
    ("spec", "annotation", "served"),
    [
        ({}, "", True),
        ({"ingressClassName": "haproxy"}, "", True),
        ({"ingressClassName": "other"}, "", False),
        ({"ingressClassName": "unheard-of"}, "", False),
        ({}, "haproxy", True),
        ({}, "traefik", False),
    ],
)
def test_a_controller_serves_its_class(spec: dict[str, Any], annotation: str, served: bool) -> None:
    given = an_ingress("web", rule("one"), **spec)
    given["metadata"]["annotations"] = {"kubernetes.io/ingress.class": annotation} if annotation else {}
    cluster = cluster_of([CLASS, given])
    (one,) = ingresses.ingresses(cluster)
    assert bool(ingresses.served_by(cluster, one)) == served
    assert bool(table.table(cluster, "haproxy").routes) == served
    shown = manifest.to_json(cluster.others["Ingress", Key("default", "web")], cluster)["status"]["loadBalancer"]
    nodes = ["192.168.0.169", "192.168.0.170", "192.168.0.171"]
    assert shown == ({"ingress": [{"ip": address} for address in nodes]} if served else {})
    assert bool(table.problems(cluster)) != served


OLD = """
apiVersion: extensions/v1beta1
kind: Ingress
metadata:
  name: old
  annotations: {kubernetes.io/ingress.class: traefik}
spec:
  backend: {serviceName: three, servicePort: 80}
  rules:
  - host: kubia.example.com
    http:
      paths:
      - path: /kubia
        backend: {serviceName: one, servicePort: http}
      - backend: {serviceName: two, servicePort: 80}
---
apiVersion: extensions/v1beta1
kind: DaemonSet
metadata: {name: traefik-ingress-controller, namespace: kube-system, labels: {k8s-app: traefik}}
spec:
  template:
    metadata: {labels: {k8s-app: traefik}}
    spec:
      hostNetwork: true
      containers:
      - image: traefik:v1.7
        name: traefik
        args: [--api, --kubernetes, --logLevel=INFO]
        ports:
        - {name: http, containerPort: 80, hostPort: 80}
        - {name: admin, containerPort: 8080}
"""


def test_the_articles_old_form_runs_on_the_default_proxy() -> None:
    loaded = manifest.read_objects([Source("old.yaml", OLD.encode())])
    base = cluster_of([], proxy=None)
    cluster = controllers.apply(base, loaded.objects)
    found = list(ingresses.controllers(cluster))
    assert {(one.flavour, one.proxy) for one in found} == {("traefik", "haproxy")}
    assert [one.node for one in found] == ["node-170", "node-171"]
    assert answer(cluster, "kubia.example.com", "/kubia/x") == "one"
    assert answer(cluster, "kubia.example.com", "/x") == "two"
    assert answer(cluster, "other", "/") == "three"
    shown = manifest.to_json(cluster.others["Ingress", Key("default", "old")], cluster)
    assert shown["apiVersion"] == "networking.k8s.io/v1"
    assert shown["spec"]["defaultBackend"] == {"service": {"name": "three", "port": {"number": 80}}}
    assert shown["spec"]["rules"][0]["http"]["paths"][1] == {
        "path": "/",
        "pathType": "ImplementationSpecific",
        "backend": {"service": {"name": "two", "port": {"number": 80}}},
    }
    assert any("traefik" in warning and "haproxy" in warning for warning in loaded.warnings), loaded.warnings


GOOD = """apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  rules:
  - host: a.example.com
    http:
      paths:
      - path: /
        pathType: Prefix
        backend: {service: {name: web, port: {number: 80}}}
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "        pathType: Prefix\n",
            "",
            "i.yaml:9:9: spec.rules[0].http.paths[0].pathType: required, but missing: Exact, Prefix",
        ),
        ("pathType: Prefix", "pathType: prefix", 'spec.rules[0].http.paths[0].pathType: "prefix" is not one of Exact, Prefix'),
        ("path: /\n", "path: foo\n", 'i.yaml:9:15: spec.rules[0].http.paths[0].path: "foo" must be an absolute path'),
        ("path: /\n", "path: /a//b\n", "must not contain '//'"),
        ("host: a.example.com", "host: 10.0.0.1", 'i.yaml:6:11: spec.rules[0].host: "10.0.0.1" must be a DNS name, not an IP'),
        ("host: a.example.com", "host: a.*.com", "is no host"),
        ("host: a.example.com", "host: A.com", "is no host"),
        ("port: {number: 80}", "port: {number: 80, name: x}", "one of them"),
        ("service: {name: web, port: {number: 80}}", "serviceName: web, servicePort: 80", "are the form of v1beta1"),
        ("service:", "resource: {kind: B, name: b}, service:", "exclude each other"),
        ("  rules:", "  ingressClass: x\n  rules:", "unknown field; did you mean ingressClassName?"),
        ("networking.k8s.io/v1", "networking.k8s.io/v2", '"networking.k8s.io/v2" has no Ingress'),
    ],
)
def test_what_the_api_server_would_refuse(old: str, new: str, said: str) -> None:
    manifest.read_objects([Source("i.yaml", GOOD.encode())])
    with pytest.raises(InputError) as caught:
        manifest.read_objects([Source("i.yaml", GOOD.replace(old, new, 1).encode())])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ingress: haproxi", 'cluster.ingress: "haproxi" is not one of haproxy, nginx, traefik; did you mean haproxy?'),
        ("ingress: {proxy: nginx, upstream: pods}", '"pods" is not one of endpoints, service'),
        ("ingress: {kind: nginx}", "unknown field kind; known are proxy, upstream"),
    ],
)
def test_a_topology_that_asks_for_what_there_is_not(text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        topology.read_topology(Source("t.yaml", f"cluster: {{{text}}}".encode()))
    assert said in str(caught.value)


# ---------------------------------------------------------------- TLS


def secret(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "kubernetes.io/tls", "stringData": data}


PEM = "-----BEGIN {0}-----\nAA==\n-----END {0}-----\n"


def test_certificates_come_from_secrets() -> None:
    good = secret("good", **{"tls.crt": PEM.format("CERTIFICATE"), "tls.key": PEM.format("PRIVATE KEY")})
    tls = [{"hosts": ["a.example.com"], "secretName": "good"}, {"hosts": ["b.example.com"], "secretName": "absent"}]
    cluster = cluster_of(
        [good, secret("half", **{"tls.crt": "x"}), an_ingress("web", rule("one"), tls=[*tls, {"secretName": "half"}])]
    )
    (one,) = table.table(cluster, "haproxy").certificates
    assert (one.name, one.hosts) == ("default/good", ("a.example.com",))
    assert one.pem == PEM.format("CERTIFICATE") + PEM.format("PRIVATE KEY")
    said = [text for _, text in table.problems(cluster)]
    assert said == [
        "TLS of b.example.com: Secret absent is not in namespace default: no certificate for it",
        "TLS of any host: Secret half has no tls.crt and tls.key: no certificate for it",
    ]


# ---------------------------------------------------------------- what the proxies are told


def tables(*upstreams: tuple[str, int], routes: tuple[Route, ...] | None = None) -> Table:
    """Upstreams with this many endpoints, and a route for each."""
    made = tuple(Upstream(name, tuple((ip_address(f"10.0.0.{n}"), 80) for n in range(1, count + 1))) for name, count in upstreams)
    return Table(tuple(Route("h", f"/{name}", False, name) for name, _ in upstreams) if routes is None else routes, made)


def test_haproxy_changes_without_a_reload_and_in_an_order_that_loses_nothing() -> None:
    old, new = tables(("a", 2), ("b", 1)), tables(("b", 1), ("c", 1))
    before = haproxy.fresh(old)
    after = haproxy.allocated(new, before)
    assert after is not None
    assert (before.slots, after.slots) == ({"a": 0, "b": 1}, {"b": 1, "c": 3}), (
        "the backend of what goes is not given away in the same change"
    )
    said = haproxy.commands((old, before), (new, after))
    kinds = [line.split()[0] + (" " + line.split()[3] if "state" in line else "") for line in said]
    assert kinds == ["set", "set state", "add", "del", "set state", "set state"], said
    assert said[0] == "set server u3/s1 addr 10.0.0.1 port 80"
    assert "add map prefix.map h/c/ u3" in said
    assert haproxy.commands((new, after), (new, after)) == []
    assert said[-1].endswith("state maint")


SERVERS = """1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_port
4 u1 1 s1 10.0.0.1 2 0 80
4 u1 2 s2 {} 0 {} 1
"""


@pytest.mark.parametrize(
    ("prefix", "server", "said"),
    [
        ("0x1 h/a/ u1\n", ("127.0.0.1", 5), []),
        ("", ("127.0.0.1", 1), ["the prefix route h/a/ leads to nobody, not to a"]),
        ("0x1 h/a/ u1\n0x2 h/b/ u9\n", ("127.0.0.1", 1), ["the prefix route h/b/ leads to the unused backend u9, not to nobody"]),
        ("0x1 h/a/ u1\n", ("10.0.0.9", 0), ["server s2 of a is 10.0.0.9 port 1, not nobody"]),
    ],
)
def test_what_haproxy_does_otherwise_is_read_back(prefix: str, server: tuple[str, int], said: list[str]) -> None:
    told = tables(("a", 1))
    shown = {"exact": "", "prefix": prefix, "default": ""}
    assert haproxy.drift(told, haproxy.fresh(told), shown, SERVERS.format(*server)) == said


def test_haproxy_asks_for_a_reload_only_where_there_is_no_room() -> None:
    before = haproxy.fresh(tables(("a", 1)))
    assert (before.backends, before.servers) == (32, 8)
    assert haproxy.allocated(tables(("a", 8)), before) is not None
    assert haproxy.allocated(tables(("a", 9)), before) is None
    assert haproxy.allocated(tables(*((f"s{n}", 1) for n in range(16))), haproxy.fresh(tables())) is not None
    many = tables(*((f"s{n}", 1) for n in range(17)))
    assert haproxy.allocated(many, before) is None
    assert haproxy.fresh(many).backends == 128


def test_who_is_alone_is_tried_again_for_a_second_at_most() -> None:
    """Elsewhere a refused request goes to another endpoint at once; HAProxy waits before it asks the same one again."""
    state = haproxy.fresh(tables(("a", 2), ("b", 1)))
    text = haproxy.configuration(tables(("a", 2), ("b", 1)), state)
    lines = {part.split()[0]: part for part in text.split("backend ")[1:]}
    assert "retries" not in lines["u0"] and "server s2 10.0.0.2:80" in lines["u0"]
    assert "retries 1" in lines["u1"]


def test_an_upstream_that_moves_leaves_its_servers_for_what_is_tried_again() -> None:
    two, one = tables(("a", 2)), tables(("a", 1))
    before = haproxy.fresh(two)
    after = haproxy.allocated(one, before)
    assert after is not None and (before.slots, after.slots) == ({"a": 0}, {"a": 1})
    said = haproxy.commands((two, before), (one, after))
    assert [line for line in said if "maint" in line] == ["set server u0/s2 state maint"], "10.0.0.1 is still found"
    again = haproxy.allocated(two, after)
    assert again is not None and again.slots == {"a": 2}, "what still has servers is not given away"
    assert "set server u0/s1 state maint" in haproxy.commands((one, after), (two, again))


def test_a_thousand_changes_never_give_a_place_to_two() -> None:
    import random

    chance = random.Random(7)
    state = haproxy.fresh(tables(*((f"s{n}", 3) for n in range(20))))
    for _ in range(1000):
        wanted = tables(*((f"s{n}", chance.randint(0, 6)) for n in chance.sample(range(40), chance.randint(1, 20))))
        after = haproxy.allocated(wanted, state)
        if after is None:
            after = haproxy.fresh(wanted)
        else:
            fresh = after.slots.keys() - state.slots.keys()
            assert not {after.slots[name] for name in fresh} & set(state.slots.values())
        assert len(set(after.slots.values())) == len(after.slots)
        for one in wanted.upstreams:
            assert sorted(place for place in after.places[after.slots[one.name]] if place) == sorted(one.endpoints)
        state = after


def test_nginx_inherits_what_no_route_of_its_own_covers() -> None:
    routes = (
        Route("", "", False, "any"), Route("", "/a/b", False, "any"), Route("", "/x", True, "any"),
        Route("*.foo.com", "/w", False, "wild"), Route("a.foo.com", "/a", False, "own"), Route("a.foo.com", "/x", True, "own"),
    )  # fmt: skip
    found = [(route.host, route.path) for route in nginx.inherited(routes, "a.foo.com")]
    assert found == [("a.foo.com", "/a"), ("a.foo.com", "/x"), ("*.foo.com", "/w"), ("", "")]


def test_traefik_gets_routers_in_the_same_order_of_precedence() -> None:
    routes = (
        Route("", "", False, "a"), Route("*.foo.com", "/long/path", False, "a"), Route("x.foo.com", "", False, "a"),
        Route("x.foo.com", "/p", False, "a"), Route("x.foo.com", "/p", True, "a"),
    )  # fmt: skip
    made = json.loads(traefik.files("/d", tables(("a", 1), routes=routes))["routes.yml"])
    routers = sorted(made["http"]["routers"].values(), key=lambda one: one["priority"])
    assert [one["rule"] for one in routers] == [
        "PathPrefix(`/`)",
        "HostRegexp(`^[^.]+\\.foo\\.com$`) && (Path(`/long/path`) || PathPrefix(`/long/path/`))",
        "Host(`x.foo.com`) && PathPrefix(`/`)",
        "Host(`x.foo.com`) && (Path(`/p`) || PathPrefix(`/p/`))",
        "Host(`x.foo.com`) && Path(`/p`)",
    ]
    assert made["http"]["services"]["u0"]["loadBalancer"]["servers"] == [{"url": "http://10.0.0.1:80"}]


def test_the_plan_names_routes_and_nothing_else_changes_with_them() -> None:
    cluster = cluster_of([])
    before = plan.build(cluster)
    after = plan.build(controllers.apply(cluster, manifest.object_from_json(an_ingress("web", rule("one"))).objects))
    changed = {op.identity[0] for op in plan.diff(before, after).added}
    assert changed == {"ingress", "file"}
    assert "prefix a.example.com/ to 10.244." in plan.text(after)


# ---------------------------------------------------------------- what people see


def test_get_and_describe_as_kubectl_prints_them() -> None:
    from datetime import UTC, datetime

    from netlab.cli import describe, tables

    tls = [{"hosts": ["a.example.com"], "secretName": "absent"}]
    given = [an_ingress("web", rule("one"), rule("nobody", host="*.b.com", path="/x"), tls=tls), CLASS]
    cluster = cluster_of(given)
    now = datetime.fromtimestamp(60, UTC)
    shown = {kind: manifest.to_json(one, cluster) for (kind, _), one in cluster.others.items() if kind.startswith("Ingress")}
    assert tables.text([shown["Ingress"]], now) == (
        "NAME   CLASS     HOSTS                   ADDRESS            PORTS     AGE\n"
        "web    haproxy   a.example.com,*.b.com   192.168.0.169...   80, 443   60s\n"
    )
    pods, slices = list(cluster.services.values()), list(cluster.slices.values())
    services, ends = ([manifest.to_json(one, cluster) for one in many] for many in (pods, slices))
    problems = [f"ingress web: {text}" for _, text in table.problems(cluster)]
    address = cluster.pods[Key("default", "one")].addresses[0]
    text = describe.text(shown["Ingress"], describe.Related(now, slices=ends, services=services, problems=problems))
    assert text.splitlines() == [
        "Name:             web",
        "Labels:           <none>",
        "Namespace:        default",
        "Address:          192.168.0.169,192.168.0.170,192.168.0.171",
        "Ingress Class:    haproxy",
        "Default backend:  <default>",
        "TLS:",
        "  absent terminates a.example.com",
        "Rules:",
        "  Host           Path  Backends",
        "  ----           ----  --------",
        "  a.example.com  ",
        f"                 /   one:80 ({address}:8080)",
        "  *.b.com        ",
        '                 /x   nobody:80 (<error: services "nobody" not found>)',
        "Annotations:     <none>",
        "Events:",
        "  Type     Reason  From                Message",
        "  ----     ------  ----                -------",
        "  Warning  Route   ingress-controller  *.b.com/x: there is no Service nobody in namespace default: 503",
        "  Warning  Route   ingress-controller  TLS of a.example.com: Secret absent is not in namespace default: "
        "no certificate for it",
    ]


# ---------------------------------------------------------------- aliases, the default class, and what is not acted on


def alias(name: str, target: str) -> dict[str, Any]:
    spec = {"type": "ExternalName", "externalName": target}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


@pytest.mark.parametrize(
    ("target", "port", "said", "want"),
    [
        ("one.default.svc.cluster.local", 80, "", "one"),
        ("one.default.svc.cluster.local.", 80, "", "one"),
        ("one.default.svc.cluster.local", 81, "one.default.svc.cluster.local, which has no port 81: 503", 503),
        ("nobody.default.svc.cluster.local", 80, "nobody.default.svc.cluster.local, which is no Service of the lab: 503", 503),
        ("itself.shop.svc.cluster.local", 80, "itself.shop.svc.cluster.local, which is an alias itself: 503", 503),
        ("www.example.com", 80, "a name that the lab's DNS does not know: it forwards nothing to the outside: 503", 503),
    ],
)
def test_an_external_name_is_followed_inside_the_cluster(target: str, port: int, said: str, want: str | int) -> None:
    cluster = cluster_of([alias("itself", target), an_ingress("web", rule("itself", port=port), namespace="shop")])
    assert [text.endswith(said) for _, text in table.problems(cluster)] == ([True] if said else []), table.problems(cluster)
    assert answer(cluster, "a.example.com", "/") == want
    endpoints = [one.endpoints for one in table.table(cluster, "haproxy").upstreams]
    assert endpoints == ([((cluster.pods[Key("default", "one")].addresses[0], 8080),)] if want == "one" else [()])


def class_of(cluster: Cluster, name: str) -> Any:
    return cluster.others["Ingress", Key("default", name)].manifest["spec"].get("ingressClassName")


def test_the_default_class_is_written_into_an_ingress_that_names_none() -> None:
    marked = an_ingress("marked", rule("one"))
    marked["metadata"]["annotations"] = {"kubernetes.io/ingress.class": "traefik"}
    given = [an_ingress("plain", rule("one")), an_ingress("named", rule("two"), ingressClassName="other"), marked]
    cluster = cluster_of(given)
    assert [class_of(cluster, name) for name in ("plain", "named", "marked")] == ["haproxy", "other", None]
    again = controllers.apply(cluster.with_(clock=9.0), manifest.object_from_json(given[0]).objects)
    assert class_of(again, "plain") == "haproxy", "applied again as it was given"
    without = cluster_of(given, proxy=None)
    assert class_of(without, "plain") is None
    late = controllers.apply(without.with_(clock=9.0), manifest.object_from_json(DEFAULT_CLASS).objects)
    assert class_of(late, "plain") is None, "admission acts on new objects only"


def test_of_several_default_classes_the_newest_counts_then_the_first_by_name() -> None:
    def marked(name: str, age: str = "") -> dict[str, Any]:
        stamp = {"creationTimestamp": age} if age else {}
        return {**DEFAULT_CLASS, "metadata": {**DEFAULT_CLASS["metadata"], **stamp, "name": name}}

    without = cluster_of([an_ingress("web", rule("one"))], proxy=None)

    def after(clock: float, *given: dict[str, Any], before: Cluster = without) -> Cluster:
        documents = {"apiVersion": "v1", "kind": "List", "items": list(given)}
        return controllers.apply(before.with_(clock=clock), manifest.object_from_json(documents).objects)

    both = after(5.0, marked("b"), marked("a"))
    assert ingresses.default_class(both.others) == "a"
    newer = after(9.0, marked("c"), before=both)
    assert ingresses.default_class(newer.others) == "c"
    assert ingresses.default_class(after(12.0, marked("a"), before=newer).others) == "c", "applied again it is as old as before"
    dumped = after(5.0, marked("a", "2024-01-01T00:00:00Z"), marked("b", "2025-01-01T00:00:00Z"))
    assert ingresses.default_class(dumped.others) == "b"


DEFAULT_CLASS: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "IngressClass",
    "metadata": {"name": "late", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
    "spec": {"controller": "k8s.io/ingress-nginx"},
}
UNACTED = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: a
  annotations:
    nginx.ingress.kubernetes.io/rewrite-target: /
    kubernetes.io/ingress.class: haproxy
    example.com/owner: me
spec: {defaultBackend: {service: {name: a, port: {number: 80}}}}
---
apiVersion: v1
kind: Service
metadata: {name: a, annotations: {metallb.universe.tf/address-pool: p}}
spec: {ports: [{port: 80}]}
---
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: p, namespace: metallb-system}
spec: {addresses: [192.168.0.200-192.168.0.210]}
"""


def test_what_controllers_of_real_clusters_are_told_is_named() -> None:
    warnings = manifest.read_objects([Source("f.yaml", UNACTED.encode())]).warnings
    assert len(warnings) == 3, warnings
    assert warnings[0].endswith("(f.yaml:7)") and "nginx.ingress.kubernetes.io/rewrite-target: not acted on" in warnings[0]
    assert warnings[1].endswith("(f.yaml:14)") and "metallb.universe.tf/address-pool: not acted on" in warnings[1]
    assert "IPAddressPool: accepted; it has no effect" in warnings[2] and "cluster: {loadBalancer: " in warnings[2]
