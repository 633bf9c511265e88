"""Kubernetes objects: what is refused, at which place and with which advice; what is accepted, and with which warning."""

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from netlab.errors import InputError
from netlab.manifest import Loaded, Source, documents, object_from_json, read_objects, read_paths
from netlab.model import (
    CONTROL_PLANE_TAINTS,
    ContainerPort,
    Endpoints,
    EndpointSlice,
    Key,
    Node,
    Other,
    Pod,
    Probe,
    Protocol,
    Ref,
    Service,
    ServicePort,
    Workload,
)

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n"
CONTAINER = POD + "  containers:\n  - name: a\n    image: nginx\n"
RC = "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: a}\nspec:\n"
TEMPLATE = "  template:\n    metadata: {labels: {app: a}}\n    spec: {containers: [{name: a, image: b}]}\n"
DEPLOYMENT = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n"
ZONES_9 = ", ".join(f"{{name: z{number}}}" for number in range(9))
SLICE = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\n"


def load(text: str) -> Loaded:
    return read_objects([Source("f.yaml", text.encode())])


def problems(text: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(text)
    return [str(problem) for problem in caught.value.problems]


MISTAKES = [
    (
        "a misspelled field and its misspelled value",
        SERVICE + "  ports: [{port: 80}]\n  sessionAffnity: ClientIp\n",
        [
            "f.yaml:6:3: spec.sessionAffnity: unknown field; did you mean sessionAffinity?",
            'f.yaml:6:19: spec.sessionAffnity: "ClientIp" is not one of None, ClientIP; did you mean ClientIP?',
        ],
    ),
    ("type", SERVICE + "  type: Nodeport\n  ports: [{port: 80}]\n", ["f.yaml:5:9: spec.type: ", "did you mean NodePort?"]),
    ("protocol in small letters", SERVICE + "  ports: [{port: 80, protocol: udp}]\n", ["did you mean UDP?"]),
    ("a field of the level below", SERVICE + "  nodePort: 30000\n  ports: [{port: 80}]\n", ["it belongs in ports[]"]),
    (
        "a port in quotes",
        SERVICE + '  ports: [{port: "80"}]\n',
        ["spec.ports[0].port: must be a whole number", "leave the quotes out"],
    ),
    ("a port too high", SERVICE + "  ports: [{port: 65536}]\n", ["must be between 1 and 65535, not 65536"]),
    ("port zero", SERVICE + "  ports: [{port: 0}]\n", ["must be between 1 and 65535"]),
    ("no port", SERVICE + "  ports: [{targetPort: 80}]\n", ["f.yaml:5:11: spec.ports[0].port: required"]),
    ("no ports", SERVICE + "  selector: {a: b}\n", ["f.yaml:5:3: spec.ports: required"]),
    ("no ports in the list", SERVICE + "  ports: []\n", ["spec.ports: required"]),
    ("ports that are no list", SERVICE + "  ports: {port: 80}\n", ["begin each item with a dash"]),
    ("two ports of one number", SERVICE + "  ports: [{name: a, port: 80}, {name: b, port: 80}]\n", ["80/TCP is there twice"]),
    ("two ports of one name", SERVICE + "  ports: [{name: a, port: 80}, {name: a, port: 81}]\n", ["two ports of this Service"]),
    (
        "two ports without names",
        SERVICE + "  ports: [{port: 80}, {port: 81}]\n",
        ["ports[0].name: required", "ports[1].name: required"],
    ),
    ("a node port too low", SERVICE + "  type: NodePort\n  ports: [{port: 80, nodePort: 8080}]\n", ["30000-32767"]),
    ("a node port on a ClusterIP", SERVICE + "  ports: [{port: 80, nodePort: 30000}]\n", ["did you mean type: NodePort?"]),
    (
        "one node port twice",
        SERVICE + "  type: NodePort\n  ports: [{name: a, port: 80, nodePort: 30001}, {name: b, port: 81, nodePort: 30001}]\n",
        ["30001/TCP is there twice"],
    ),
    ("a targetPort that is no name", SERVICE + "  ports: [{port: 80, targetPort: HTTP_main}]\n", ["is no port name"]),
    ("a targetPort in quotes", SERVICE + '  ports: [{port: 80, targetPort: "8080"}]\n', ["leave the quotes out"]),
    ("a clusterIP that is none", SERVICE + "  clusterIP: 10.96.0\n  ports: [{port: 80}]\n", ['"10.96.0" is no IP address']),
    ("none in small letters", SERVICE + "  clusterIP: none\n  ports: [{port: 80}]\n", ["did you mean None?"]),
    ("headless NodePort", SERVICE + "  clusterIP: None\n  type: NodePort\n  ports: [{port: 80}]\n", ["None is not allowed"]),
    (
        "clusterIPs that differ",
        SERVICE + "  clusterIP: 1.2.3.4\n  clusterIPs: [1.2.3.5]\n  ports: [{port: 80}]\n",
        ["the first of them"],
    ),
    (
        "an affinity timeout without affinity",
        SERVICE + "  ports: [{port: 80}]\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}\n",
        ["only allowed with sessionAffinity: ClientIP"],
    ),
    (
        "an affinity timeout over a day",
        SERVICE
        + "  ports: [{port: 80}]\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}\n",
        ["between 1 and 86400"],
    ),
    (
        "a policy for outside on a ClusterIP",
        SERVICE + "  ports: [{port: 80}]\n  externalTrafficPolicy: Local\n",
        ["reached from outside"],
    ),
    (
        "source ranges on a ClusterIP",
        SERVICE + "  ports: [{port: 80}]\n  loadBalancerSourceRanges: [10.0.0.0/8]\n",
        ["only allowed when type is LoadBalancer"],
    ),
    ("ExternalName without a name", SERVICE + "  type: ExternalName\n", ["spec.externalName: required"]),
    ("a loopback externalIP", SERVICE + "  ports: [{port: 80}]\n  externalIPs: [127.0.0.1]\n", ["loopback"]),
    ("a number as a label", SERVICE + "  ports: [{port: 80}]\n  selector: {v: 1}\n", ['put it in quotes: "1"']),
    ("yes as a label", SERVICE + "  ports: [{port: 80}]\n  selector: {v: yes}\n", ["not the boolean true", "put it in quotes"]),
    ("a label value with a blank", SERVICE + "  ports: [{port: 80}]\n  selector: {v: a b}\n", ["no valid label value"]),
    ("a label key with two slashes", SERVICE + "  ports: [{port: 80}]\n  selector: {a/b/c: x}\n", ["prefix"]),
    (
        "a Service name that begins with a digit",
        SERVICE.replace("web", "1web") + "  ports: [{port: 80}]\n",
        ["beginning with a letter"],
    ),
    ("a name with capitals", CONTAINER.replace("{name: a}", "{name: My_Pod}"), ["did you mean my-pod?"]),
    ("no name", CONTAINER.replace("{name: a}", "{}"), ["f.yaml:3:11: metadata.name: required"]),
    ("a name that is a number", CONTAINER.replace("{name: a}", "{name: 80}"), ["metadata.name: must be a string", '"80"']),
    ("generateName", CONTAINER.replace("{name: a}", "{generateName: a-}"), ["give it a name"]),
    ("no kind", "apiVersion: v1\nmetadata: {name: a}\n", ["f.yaml:1:1: kind: required"]),
    ("no apiVersion", CONTAINER.replace("apiVersion: v1\n", ""), ["apiVersion: required, but missing; Pod has v1"]),
    ("a misspelled kind", CONTAINER.replace("Pod", "pod"), ['"pod" is no kind that is known; did you mean Pod?']),
    ("a misspelled apiVersion key", CONTAINER.replace("apiVersion", "apiversion"), ["unknown field; did you mean apiVersion?"]),
    (
        "the wrong apiVersion",
        DEPLOYMENT.replace("apps/v1", "v1") + "  selector: {matchLabels: {app: a}}\n" + TEMPLATE,
        ["did you mean apps/v1?"],
    ),
    (
        "an apiVersion of the future",
        DEPLOYMENT.replace("apps/v1", "apps/v7") + "  selector: {matchLabels: {app: a}}\n" + TEMPLATE,
        ["did you mean apps/v1?"],
    ),
    (
        "a misspelled group",
        "apiVersion: networking.k8.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n",
        ["did you mean networking.k8s.io/v1?"],
    ),
    ("a topology among the manifests", "apiVersion: netlab/v1\nkind: Topology\n", ["first argument of `netlab up`"]),
    ("text", "hello", ["a Kubernetes object is wanted"]),
    ("a List of nothing good", "apiVersion: v1\nkind: List\nitems: {a: b}\n", ["items: must be a list"]),
    (
        "an item of a List",
        "apiVersion: v1\nkind: List\nitems:\n- kind: Pod\n  apiVersion: v1\n  metadata: {name: a}\n",
        ["items[0].spec: required"],
    ),
    ("containers missing", POD + "  restartPolicy: Always\n", ["spec.containers: required"]),
    ("containers empty", POD + "  containers: []\n", ["spec.containers: must not be empty"]),
    ("container without a name", POD + "  containers: [{image: nginx}]\n", ["spec.containers[0].name: required"]),
    ("container without an image", POD + "  containers: [{name: a}]\n", ["spec.containers[0].image: required"]),
    (
        "two containers of one name",
        POD + "  containers: [{name: a, image: b}, {name: a, image: b}]\n",
        ["two containers are called a"],
    ),
    (
        "two container ports of one name",
        CONTAINER + "    ports: [{containerPort: 1, name: x}, {containerPort: 2, name: x}]\n",
        ["two ports of this container"],
    ),
    ("a port name too long", CONTAINER + "    ports: [{containerPort: 1, name: abcdefghijklmnop}]\n", ["at most 15 characters"]),
    (
        "a misspelled containerPort",
        CONTAINER + "    ports: [{containerport: 80}]\n",
        ["unknown field; did you mean containerPort?"],
    ),
    ("a command that is no list", CONTAINER + "    command: sleep\n", ["spec.containers[0].command: must be a list"]),
    ("an env value that is a number", CONTAINER + "    env: [{name: A, value: 1}]\n", ['put it in quotes: "1"']),
    (
        "a readiness probe of two kinds",
        CONTAINER + "    readinessProbe: {httpGet: {port: 80}, tcpSocket: {port: 80}}\n",
        ["exactly one of"],
    ),
    ("a readiness probe of no kind", CONTAINER + "    readinessProbe: {periodSeconds: 1}\n", ["exactly one of"]),
    ("a wrong podIP", CONTAINER + "status: {podIP: 10.244.1}\n", ["status.podIP: ", "is no IP address"]),
    ("replicas below zero", RC + "  replicas: -1\n" + TEMPLATE, ["spec.replicas: must not be negative"]),
    ("replicas in quotes", RC + '  replicas: "3"\n' + TEMPLATE, ["leave the quotes out"]),
    (
        "a selector that does not match",
        RC + "  selector: {app: b}\n" + TEMPLATE,
        ["spec.selector: does not match the template's labels (app: a)"],
    ),
    ("a Deployment without a selector", DEPLOYMENT + TEMPLATE, ["spec.selector: required"]),
    ("an empty selector", DEPLOYMENT + "  selector: {}\n" + TEMPLATE, ["spec.selector: must not be empty"]),
    ("a plain selector in a Deployment", DEPLOYMENT + "  selector: {app: a}\n" + TEMPLATE, ["spec.selector.app: unknown field"]),
    (
        "an expression without values",
        DEPLOYMENT + "  selector: {matchExpressions: [{key: app, operator: In}]}\n" + TEMPLATE,
        ["must not be empty when operator is In"],
    ),
    (
        "a template that does not restart",
        RC + TEMPLATE.replace("{containers", "{restartPolicy: Never, containers"),
        ["must be Always"],
    ),
    ("no template", RC + "  replicas: 3\n", ["spec.template: required"]),
    ("affinity settings of nothing", SERVICE + "  ports: [{port: 80}]\n  sessionAffinityConfig: {}\n", ["ClientIP"]),
    (
        "a class with a space",
        SERVICE + "  type: LoadBalancer\n  ports: [{port: 80}]\n  loadBalancerClass: not ok\n",
        ["spec.loadBalancerClass: ", "no valid key"],
    ),
    ("appProtocol with a space", SERVICE + "  ports: [{port: 80, appProtocol: my proto}]\n", ["spec.ports[0].appProtocol: "]),
    (
        "ExternalName that is headless",
        SERVICE + "  type: ExternalName\n  externalName: a.b\n  clusterIP: None\n",
        ["f.yaml:7:14: spec.clusterIP: not allowed when type is ExternalName"],
    ),
    (
        "ExternalName with families",
        SERVICE + "  type: ExternalName\n  externalName: a.b\n  ipFamilies: [IPv4]\n",
        ["spec.ipFamilies: not allowed when type is ExternalName"],
    ),
    (
        "one number for health checks and a nodePort",
        SERVICE + "  type: LoadBalancer\n  externalTrafficPolicy: Local\n"
        "  ports: [{port: 80, nodePort: 30005}]\n  healthCheckNodePort: 30005\n",
        ["spec.healthCheckNodePort: 30005 is a nodePort of this Service already"],
    ),
    (
        "ipMode of a hostname",
        SERVICE + "  type: LoadBalancer\n  ports: [{port: 80}]\n"
        "status: {loadBalancer: {ingress: [{hostname: a.b, ipMode: VIP}]}}\n",
        ["status.loadBalancer.ingress[0].ipMode: not allowed without ip"],
    ),
    (
        "nine zones in a hint",
        SLICE + f"addressType: IPv4\nendpoints: [{{addresses: [10.9.9.9], hints: {{forZones: [{ZONES_9}]}}}}]\n",
        ["endpoints[0].hints.forZones: at most 8, not 9"],
    ),
    (
        "a node twice in a hint",
        SLICE + "addressType: IPv4\nendpoints: [{addresses: [10.9.9.9], hints: {forNodes: [{name: a}, {name: a}]}}]\n",
        ["endpoints[0].hints.forNodes[1].name: a is there twice"],
    ),
    (
        "an endpoint on no node",
        SLICE + "addressType: IPv4\nendpoints: [{addresses: [10.9.9.9], nodeName: No_de}]\n",
        ["endpoints[0].nodeName: "],
    ),
    ("a slice's port with a capital", SLICE + "addressType: IPv4\nports: [{name: A_, port: 80}]\n", ["ports[0].name: "]),
    (
        "a slice of 1001",
        SLICE + f"addressType: IPv4\nendpoints: [{', '.join(['{addresses: [10.9.9.9]}'] * 1001)}]\n",
        ["endpoints: at most 1000, not 1001"],
    ),
    (
        "Endpoints on no node",
        "apiVersion: v1\nkind: Endpoints\nmetadata: {name: a}\nsubsets: [{addresses: [{ip: 10.9.9.9, nodeName: A_}]}]\n",
        ["subsets[0].addresses[0].nodeName: "],
    ),
    ("a slice without a type", SLICE + "endpoints: []\n", ["addressType: required"]),
    (
        "a slice with an address of the other family",
        SLICE + 'addressType: IPv4\nendpoints: [{addresses: ["fd00::1"]}]\n',
        ["no IPv4 address"],
    ),
    ("a slice with a loopback address", SLICE + "addressType: IPv4\nendpoints: [{addresses: [127.0.0.1]}]\n", ["loopback"]),
    (
        "a node with a wrong podCIDR",
        "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nspec: {podCIDR: 10.244.1.1/24}\n",
        ["did you mean 10.244.1.0/24?"],
    ),
]


@pytest.mark.parametrize(("text", "wanted"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_named_with_its_place(text: str, wanted: list[str]) -> None:
    found = "\n".join(problems(text))
    for part in wanted:
        assert part in found
    assert all(line.startswith("f.yaml:") for line in found.split("\n"))


@pytest.mark.parametrize(("text", "wanted"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_one_mistake_is_one_message(text: str, wanted: list[str]) -> None:
    expected = 2 if ("required" in wanted[-1] and len(wanted) == 2) or "ClientIp" in text else 1
    assert len(problems(text)) == expected


def test_all_mistakes_of_all_files_come_at_once_in_order() -> None:
    first = Source("a.yaml", (SERVICE + "  prots: [{port: 80}]\n---\nkind: Pod\n").encode())
    broken = Source("b.yaml", b"a: b: c\n")
    last = Source("c.yaml", (SERVICE + "  ports: [{port: 0}]\n").encode())
    with pytest.raises(InputError) as caught:
        read_objects([first, broken, last])
    found = [(problem.file, problem.line, problem.field) for problem in caught.value.problems]
    assert found == [
        ("a.yaml", 5, "spec.prots"),
        ("a.yaml", 7, "apiVersion"),
        ("a.yaml", 7, "metadata"),
        ("a.yaml", 7, "spec"),
        ("b.yaml", 1, ""),
        ("c.yaml", 5, "spec.ports[0].port"),
    ]


def test_thousands_of_mistakes_are_counted_not_shown() -> None:
    text = SERVICE + "".join(f"  wrong{number}: 1\n" for number in range(5000)) + "  ports: [{port: 80}]\n"
    found = problems(text)
    assert len(found) < 300
    assert "more mistakes" in found[-1]


def test_the_same_checks_on_plain_json() -> None:
    document: Mapping[str, Any] = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80}], "sessionAffnity": "ClientIp"},
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        object_from_json(document)
    assert "request: spec.sessionAffnity: unknown field; did you mean sessionAffinity?" in str(caught.value)


JSON_THAT_IS_NONE: list[tuple[str, Any]] = [
    ("not a number", {"a": float("nan")}),
    ("a set", {"a": {1, 2}}),
    ("a key that is a number", {1: 2}),
    ("a tuple", {"a": (1,)}),
]


@pytest.mark.parametrize("document", [row[1] for row in JSON_THAT_IS_NONE], ids=[row[0] for row in JSON_THAT_IS_NONE])
def test_data_that_is_no_json_is_refused(document: Any) -> None:
    with pytest.raises(InputError):
        object_from_json(document)


def test_json_that_is_nested_too_deep_is_refused() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(InputError, match="nested deeper"):
        object_from_json(deep)


# ---------------------------------------------------------------- what is read


def one(text: str) -> Any:
    (found,) = load(text).objects
    return found


def test_a_service_with_every_default() -> None:
    service = one(SERVICE + "  ports: [{port: 80}]\n  selector: {app: web}\n")
    assert isinstance(service, Service)
    assert service.ports == (ServicePort(80, "", Protocol.TCP, 80, None),)
    assert (service.type, service.session_affinity, service.affinity_timeout_s) == ("ClusterIP", "None", 10800)
    assert (service.cluster_ips, service.headless, service.ip_families) == ((), False, ("IPv4",))
    assert service.meta.key == Key("default", "web")
    assert service.manifest["spec"]["selector"] == {"app": "web"}


def test_a_service_with_everything_given() -> None:
    service = one(
        SERVICE
        + """  type: LoadBalancer
  clusterIP: 10.96.0.9
  clusterIPs: [10.96.0.9, "fd00::9"]
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 30}}
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  healthCheckNodePort: 32000
  loadBalancerSourceRanges: [" 10.0.0.1/8"]
  externalIPs: [203.0.113.9]
  allocateLoadBalancerNodePorts: false
  publishNotReadyAddresses: true
  trafficDistribution: PreferSameZone
  ports: [{name: dns, port: 53, protocol: UDP, targetPort: dns-udp, nodePort: 30053}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.200, ipMode: Proxy}, {hostname: lb.example}]}}
"""
    )
    assert service.ports == (ServicePort(53, "dns", Protocol.UDP, "dns-udp", 30053),)
    assert [str(address) for address in service.cluster_ips] == ["10.96.0.9", "fd00::9"]
    assert (service.ip_families, service.affinity_timeout_s) == (("IPv4", "IPv6"), 30)
    assert (service.external_traffic_policy, service.internal_traffic_policy) == ("Local", "Local")
    assert [str(network) for network in service.source_ranges] == ["10.0.0.0/8"]
    assert [(str(entry.ip), entry.hostname, entry.ip_mode) for entry in service.load_balancer] == [
        ("203.0.113.200", "", "Proxy"),
        ("None", "lb.example", None),
    ]
    assert (service.health_check_node_port, service.allocate_node_ports, service.publish_not_ready_addresses) == (
        32000,
        False,
        True,
    )


def test_headless_is_no_address() -> None:
    service = one(SERVICE + "  clusterIP: None\n")
    assert service.headless
    assert service.cluster_ips == ()


def test_a_pod_with_a_command_a_port_and_a_probe() -> None:
    pod = one(
        POD
        + """  nodeName: node-1
  hostname: alpha
  tolerations: [{operator: Exists}]
  nodeSelector: {disk: ssd}
  containers:
  - name: a
    image: nginx:1.29
    command: [sleep]
    args: [infinity]
    env: [{name: MODE, value: test}, {name: EMPTY}]
    ports: [{containerPort: 80, name: http}, {containerPort: 53, protocol: UDP}]
    readinessProbe: {httpGet: {port: http}, periodSeconds: 2}
"""
    )
    assert isinstance(pod, Pod)
    container = pod.spec.containers[0]
    assert container.command == ("sleep", "infinity")
    assert container.ports == (ContainerPort(80, "http"), ContainerPort(53, "", Protocol.UDP))
    assert container.env == (("MODE", "test"), ("EMPTY", ""))
    assert container.readiness == Probe(http_path="/", port="http", period_s=2)
    assert (pod.node, pod.spec.node_name, pod.spec.hostname) == ("node-1", "node-1", "alpha")
    assert any(one.tolerates(CONTROL_PLANE_TAINTS[0]) for one in pod.spec.tolerations)
    assert (pod.phase, pod.ready, pod.addresses) == ("Pending", False, ())


def test_args_alone_are_for_an_entrypoint_that_is_not_here() -> None:
    loaded = load(CONTAINER + "    args: [netexec]\n")
    pod = loaded.objects[0]
    assert isinstance(pod, Pod)
    assert pod.spec.containers[0].command == ()
    assert "args without command" in loaded.warnings[0]


def test_a_replication_controller_without_a_selector_takes_the_labels() -> None:
    workload = one(RC + TEMPLATE)
    assert isinstance(workload, Workload)
    assert (workload.replicas, dict(workload.selector.labels), dict(workload.template.labels)) == (1, {"app": "a"}, {"app": "a"})


@pytest.mark.parametrize(
    ("kind", "version"),
    [("Deployment", "extensions/v1beta1"), ("DaemonSet", "extensions/v1beta1"), ("Deployment", "apps/v1beta1")],
)
def test_old_forms_are_read(kind: str, version: str) -> None:
    text = DEPLOYMENT.replace("Deployment", kind).replace("apps/v1", version) + TEMPLATE
    loaded = load(text)
    workload = loaded.objects[0]
    assert isinstance(workload, Workload)
    assert (workload.kind, dict(workload.selector.labels)) == (kind, {"app": "a"})
    assert loaded.warnings == (f"{version} is an old form, read as apps/v1 (f.yaml:1)",)


def test_an_endpoint_slice_is_kept_as_given() -> None:
    entry = one(
        SLICE.replace("{name: a}", "{name: a, labels: {kubernetes.io/service-name: web}}")
        + """addressType: IPv4
endpoints:
- addresses: [10.244.1.5]
  conditions: {ready: false, serving: true, terminating: true}
  nodeName: node-a
  zone: zone-a
  targetRef: {kind: Pod, name: p}
  hints: {forZones: [{name: zone-a}], forNodes: [{name: node-a}]}
- addresses: [10.244.1.6]
ports: [{name: http, port: 8080}, {protocol: UDP}]
"""
    )
    assert isinstance(entry, EndpointSlice)
    assert (entry.service, entry.managed) == (Key("default", "web"), False)
    first, second = entry.endpoints
    assert (first.ready, first.serving, first.terminating) == (False, True, True)
    assert (first.node_name, first.zone, first.target) == ("node-a", "zone-a", Ref("pod", "default", "p"))
    assert (first.zone_hints, first.node_hints) == (("zone-a",), ("node-a",))
    assert (second.ready, second.serving, second.terminating, second.node_name) == (None, None, None, None)
    assert [(port.name, port.port, port.protocol) for port in entry.ports] == [("http", 8080, "TCP"), ("", None, "UDP")]


def test_what_says_nothing_is_left_to_the_default() -> None:
    text = SERVICE + "  type: ''\n  sessionAffinity: ''\n  externalTrafficPolicy: ''\n"
    service = one(text + "  ports: [{port: 80, targetPort: 0, name: a}, {port: 81, targetPort: '', name: b}]\n")
    assert isinstance(service, Service)
    assert (service.type, service.session_affinity, service.external_traffic_policy) == ("ClusterIP", "None", "Cluster")
    assert [port.target_port for port in service.ports] == [80, 81]


def test_hints_by_annotation_are_said_not_to_be_made() -> None:
    text = SERVICE.replace("{name: web}", "{name: web, annotations: {service.kubernetes.io/topology-mode: Auto}}")
    (warning,) = load(text + "  ports: [{port: 80}]\n").warnings
    assert "topology-mode: not acted on" in warning and "trafficDistribution" in warning
    assert not load(text.replace("Auto", "Disabled") + "  ports: [{port: 80}]\n").warnings


def test_endpoints_by_hand() -> None:
    entry = one(
        """apiVersion: v1
kind: Endpoints
metadata: {name: db}
subsets:
- addresses: [{ip: 192.0.2.1}]
  notReadyAddresses: [{ip: 192.0.2.2}]
  ports: [{port: 5432}]
"""
    )
    assert isinstance(entry, Endpoints)
    ((ends, ports),) = entry.subsets
    assert [(str(end.addresses[0]), end.ready) for end in ends] == [("192.0.2.1", True), ("192.0.2.2", False)]
    assert [(port.name, port.port) for port in ports] == [("", 5432)]


def test_a_node_is_a_control_plane_by_its_taint() -> None:
    text = "apiVersion: v1\nkind: Node\nmetadata: {name: a, labels: {node-role.kubernetes.io/control-plane: ''}}\n"
    tainted = text + "spec: {taints: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]}\n"
    assert [one(text).control_plane, one(tainted).control_plane] == [False, True]


def test_internal_addresses_come_first() -> None:
    node = one(
        "apiVersion: v1\nkind: Node\nmetadata: {name: a}\nstatus: {addresses: "
        "[{type: ExternalIP, address: 198.51.100.1}, {type: InternalIP, address: 10.0.0.1}, {type: Hostname, address: a}]}\n"
    )
    assert isinstance(node, Node)
    assert node.addresses == (ip_address("10.0.0.1"),)


WARNINGS = [
    (
        "no effect",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n",
        "ConfigMap: accepted; it has no effect",
    ),
    (
        "RBAC",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: 'system:a'}\n",
        "ClusterRole: accepted",
    ),
    ("custom", "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {x: 1}\n", "Service: accepted"),
    ("policy", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\n", "not enforced yet"),
    ("cron job", "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: a}\n", "not acted on: it makes no Jobs"),
]


@pytest.mark.parametrize(("text", "wanted"), [row[1:] for row in WARNINGS], ids=[row[0] for row in WARNINGS])
def test_what_has_no_effect_is_kept_with_one_line(text: str, wanted: str) -> None:
    loaded = load(text + "---\n" + text.replace("name: a", "name: b").replace("'system:a'", "'system:b'"))
    assert len(loaded.objects) == 2
    assert all(isinstance(entry, Other) for entry in loaded.objects)
    assert sum(wanted in warning for warning in loaded.warnings) == 1


def test_a_namespace_needs_no_warning() -> None:
    loaded = load("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
    assert loaded.warnings == ()
    assert loaded.objects[0].meta.key == Key("", "shop")


def test_fields_that_could_matter_are_named_in_one_warning() -> None:
    text = CONTAINER + "    lifecycle: {postStart: {exec: {command: [x]}}}\n    envFrom: []\n"
    text += "    resources: {limits: {cpu: 1}}\n"
    text += "  dnsPolicy: None\n  volumes: [{name: a, emptyDir: {}}]\n  schedulerName: default-scheduler\n"
    (warning,) = load(text).warnings
    assert warning.startswith("accepted, but netlab does not act on: ")
    for name in (
        "spec.containers.lifecycle.postStart (f.yaml:8)",
        "spec.dnsPolicy (f.yaml:11)",
    ):
        assert name in warning
    assert not any(quiet in warning for quiet in ("resources", "volumes", "schedulerName"))


def test_a_list_and_a_typed_list_are_their_items() -> None:
    items = "[{metadata: {name: a}, spec: {ports: [{port: 80}]}}]"
    loaded = load(f"apiVersion: v1\nkind: ServiceList\nitems: {items}\n")
    assert [type(entry) for entry in loaded.objects] == [Service]
    nested = load(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: []}\n"
        "- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
    )
    assert len(nested.objects) == 1


def test_two_of_the_same_get_a_warning_unless_they_are_equal() -> None:
    text = SERVICE + "  ports: [{port: 80}]\n"
    assert load(f"{text}---\n{text}").warnings == ()
    assert "there more than once" in load(f"{text}---\n{text.replace('80', '81')}").warnings[0]


OWNED = """apiVersion: v1
kind: Pod
metadata:
  name: a-1
  labels: {app: a}
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: a, uid: u, controller: true}]
spec: {containers: [{name: a, image: b}]}
"""


def test_a_pod_whose_owner_is_not_there_is_a_bare_pod() -> None:
    replica_set = DEPLOYMENT.replace("Deployment", "ReplicaSet") + "  selector: {matchLabels: {app: a}}\n" + TEMPLATE
    assert one(OWNED).meta.owner is None
    assert load(f"{OWNED}---\n{replica_set}").objects[0].meta.owner == Ref("replicaset", "default", "a")


def test_a_single_json_object_keeps_its_owner() -> None:
    (document,) = documents([Source("x", OWNED.encode())])
    assert object_from_json(document).objects[0].meta.owner == Ref("replicaset", "default", "a")


# ---------------------------------------------------------------- files


def test_paths_are_files_directories_and_standard_input(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "note.txt"):
        (tmp_path / name).write_text("{}")
    sources = read_paths([str(tmp_path), "-", str(tmp_path / "b.yaml")], lambda: b"in")
    assert [Path(source.name).name for source in sources] == ["a.yml", "b.yaml", "c.json", "-", "b.yaml"]
    assert (sources[3].shown, sources[3].data) == ("<stdin>", b"in")


def test_paths_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        read_paths([str(tmp_path / "gone.yaml"), str(tmp_path / "empty")], lambda: b"")
    assert [problem.message for problem in caught.value.problems] == [
        "no such file or directory",
        "the directory holds no *.yaml, *.yml or *.json file",
    ]


MOUNTING = """apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  selector: {matchLabels: {app: db}}
  volumeClaimTemplates: [{metadata: {name: data}}]
  template:
    metadata: {labels: {app: db}}
    spec:
      volumes: [{name: settings, configMap: {name: s}}]
      containers:
      - name: c
        image: redis
        volumeMounts:
        - {name: settings, mountPath: /s}
        - {name: data, mountPath: /d}
"""


def test_a_mount_without_its_volume() -> None:
    assert len(load(MOUNTING).objects) == 1, "a claim template is a volume of each pod"
    found = problems(MOUNTING.replace("name: data, mountPath", "name: date, mountPath"))
    where = "f.yaml:16:18: spec.template.spec.containers[0].volumeMounts[1].name: "
    assert found == [f'{where}Not found: "date": no volume of the pod is called so; there is settings, data']
    alone = CONTAINER + "    volumeMounts: [{name: x, mountPath: /x}]\n"
    assert problems(alone)[0].endswith('Not found: "x": no volume of the pod is called so; the pod has no volumes')
    spoiled = MOUNTING.replace("{name: settings, configMap", "{nme: settings, configMap")
    assert not any("Not found" in one for one in problems(spoiled)), "only what is wrong, not what follows from it"
