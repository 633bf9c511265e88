"""One cluster with every kind of record of the Kubernetes DNS specification 1.1.0, and what each question must be answered with.

Asked of the pure zone in tests/test_dns.py, and of a running lab by dnspython, dig and glibc in tests/live/test_dns_live.py.
"""

from typing import NamedTuple

MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.80
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: query, port: 5353, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: bare}
spec: {clusterIP: 10.96.0.81, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.82, selector: {app: web}, ports: [{name: http, port: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: pets}
spec: {clusterIP: None, selector: {kind: pet}, ports: [{name: http, port: 80, targetPort: 8080}, {name: admin, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: eager}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {health: ill}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: waiting}
spec: {clusterIP: None, selector: {health: ill}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {clusterIP: None, selector: {app: nobody}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: six}
spec: {clusterIP: None, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: six-1, labels: {kubernetes.io/service-name: six}}
addressType: IPv6
endpoints:
- {addresses: ["2001:db8::20"], hostname: rex, conditions: {ready: true}}
- {addresses: ["2001:db8::21"]}
- {addresses: ["2001:db8::22"], conditions: {ready: false}}
ports: [{name: http, port: 8080, protocol: TCP}]
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {type: ExternalName, externalName: www.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: alias}
spec: {type: ExternalName, externalName: web.shop.svc.cluster.local}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node-170, containers: [{name: main, image: curl}]}
---
apiVersion: v1
kind: Pod
metadata: {name: pet-1, labels: {kind: pet}}
spec:
  nodeName: node-170
  hostname: rex
  subdomain: pets
  containers: [{name: main, image: kubia, ports: [{containerPort: 8080}]}]
status: {podIP: 10.244.1.20}
---
apiVersion: v1
kind: Pod
metadata: {name: pet-2, labels: {kind: pet}}
spec: {nodeName: node-171, containers: [{name: main, image: kubia, ports: [{containerPort: 8080}]}]}
status: {podIP: 10.244.2.21}
---
apiVersion: v1
kind: Pod
metadata: {name: pet-3, labels: {kind: pet, health: ill}}
spec:
  nodeName: node-171
  containers:
  - name: main
    image: kubia
    ports: [{containerPort: 8080}]
    readinessProbe: {exec: {command: ["false"]}, initialDelaySeconds: 3600}
status: {podIP: 10.244.2.22}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: herd}
spec:
  replicas: 2
  selector: {matchLabels: {app: herd}}
  template:
    metadata: {labels: {app: herd}}
    spec: {containers: [{name: main, image: kubia, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: herd}
spec: {clusterIP: None, selector: {app: herd}, ports: [{name: http, port: 80, targetPort: 8080}]}
"""


class Case(NamedTuple):
    """`answers`: every record of the answer section, as dnspython and dig write it: TYPE and data."""

    row: str
    name: str
    type: str
    answers: tuple[str, ...] = ()
    status: str = "NOERROR"


ALL = "default.svc.cluster.local"
V6 = "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
CASES = (
    Case("2.2 schema version", "dns-version.cluster.local", "TXT", ('TXT "1.1.0"',)),
    Case("2.3.1 A of a ClusterIP", f"web.{ALL}", "A", ("A 10.96.0.80",)),
    Case("2.3.1 A of kubernetes", f"kubernetes.{ALL}", "A", ("A 10.96.0.1",)),
    Case("2.3.1 A of kube-dns", "kube-dns.kube-system.svc.cluster.local", "A", ("A 10.96.0.10",)),
    Case("2.3.1 A in another namespace", "web.shop.svc.cluster.local", "A", ("A 10.96.0.82",)),
    Case("2.3.1 AAAA of an IPv4 Service: NODATA", f"web.{ALL}", "AAAA"),
    Case("2.3.2 SRV of a named port", f"_http._tcp.web.{ALL}", "SRV", (f"SRV 0 100 80 web.{ALL}.",)),
    Case("2.3.2 SRV over UDP", f"_query._udp.web.{ALL}", "SRV", (f"SRV 0 100 5353 web.{ALL}.",)),
    Case("2.3.2 SRV of the wrong protocol", f"_http._udp.web.{ALL}", "SRV", (), "NXDOMAIN"),
    Case("2.3.2 an unnamed port has no SRV", f"_80._tcp.bare.{ALL}", "SRV", (), "NXDOMAIN"),
    Case("2.3.3 PTR of a clusterIP", "80.0.96.10.in-addr.arpa", "PTR", (f"PTR web.{ALL}.",)),
    Case("2.3.3 PTR of an address without Service", "99.0.96.10.in-addr.arpa", "PTR", (), "NXDOMAIN"),
    Case("2.4.1 A of a headless Service: the ready endpoints", f"pets.{ALL}", "A", ("A 10.244.1.20", "A 10.244.2.21")),
    Case("2.4.1 A of an endpoint with hostname", f"rex.pets.{ALL}", "A", ("A 10.244.1.20",)),
    Case("2.4.1 A of an endpoint without hostname", f"10-244-2-21.pets.{ALL}", "A", ("A 10.244.2.21",)),
    Case("2.4.1 an endpoint that is not ready has no name", f"10-244-2-22.pets.{ALL}", "A", (), "NXDOMAIN"),
    Case("2.4.1 hostname of another Service", f"rex.herd.{ALL}", "A", (), "NXDOMAIN"),
    Case("2.4.1 no ready endpoint: NXDOMAIN", f"waiting.{ALL}", "A", (), "NXDOMAIN"),
    Case("2.4.1 no endpoint at all: NXDOMAIN", f"nobody.{ALL}", "A", (), "NXDOMAIN"),
    Case("2.4.1 publishNotReadyAddresses", f"eager.{ALL}", "A", ("A 10.244.2.22",)),
    Case("2.4.1 AAAA of a headless Service", f"six.{ALL}", "AAAA", ("AAAA 2001:db8::20", "AAAA 2001:db8::21")),
    Case("2.4.1 A of an IPv6 headless Service: NODATA", f"six.{ALL}", "A"),
    Case("2.4.1 AAAA of an endpoint with hostname", f"rex.six.{ALL}", "AAAA", ("AAAA 2001:db8::20",)),
    Case("2.4.1 AAAA of an endpoint without hostname", f"2001-db8--21.six.{ALL}", "AAAA", ("AAAA 2001:db8::21",)),
    Case(
        "2.4.2 SRV of a headless Service: each endpoint, its own port",
        f"_http._tcp.pets.{ALL}",
        "SRV",
        (f"SRV 0 100 8080 10-244-2-21.pets.{ALL}.", f"SRV 0 100 8080 rex.pets.{ALL}."),
    ),
    Case(
        "2.4.2 SRV of its second port",
        f"_admin._tcp.pets.{ALL}",
        "SRV",
        (f"SRV 0 100 81 10-244-2-21.pets.{ALL}.", f"SRV 0 100 81 rex.pets.{ALL}."),
    ),
    Case("2.4.2 SRV without ready endpoints", f"_http._tcp.waiting.{ALL}", "SRV", (), "NXDOMAIN"),
    Case("2.4.3 PTR of an endpoint with hostname", "20.1.244.10.in-addr.arpa", "PTR", (f"PTR rex.pets.{ALL}.",)),
    Case("2.4.3 PTR of an endpoint without hostname", "21.2.244.10.in-addr.arpa", "PTR", (f"PTR 10-244-2-21.pets.{ALL}.",)),
    Case("2.4.3 PTR of an IPv6 endpoint", f"0.2.{V6[4:]}", "PTR", (f"PTR rex.six.{ALL}.",)),
    Case("2.5 CNAME of an ExternalName", f"outside.{ALL}", "CNAME", ("CNAME www.example.com.",)),
    Case("2.5 A of an ExternalName: its target is not looked up", f"outside.{ALL}", "A", ("CNAME www.example.com.",)),
    Case(
        "2.5 A of an ExternalName inside the cluster",
        f"alias.{ALL}",
        "A",
        ("A 10.96.0.82", "CNAME web.shop.svc.cluster.local."),
    ),
    Case("2.6 A of a pod by its address", "10-244-1-20.default.pod.cluster.local", "A", ("A 10.244.1.20",)),
    Case("2.6 AAAA of a pod by its address", "2001-db8--7.default.pod.cluster.local", "AAAA", ("AAAA 2001:db8::7",)),
    Case("2.6 A of a pod in no namespace", "10-244-1-20.nowhere.pod.cluster.local", "A", (), "NXDOMAIN"),
    Case("2.6 no address", "10-244-1.default.pod.cluster.local", "A", (), "NXDOMAIN"),
    Case("case does not matter", "WEB.Default.sVc.cluster.LOCAL", "A", ("A 10.96.0.80",)),
    Case("a Service that is not there", f"wep.{ALL}", "A", (), "NXDOMAIN"),
    Case("a namespace that is not there", "web.nowhere.svc.cluster.local", "A", (), "NXDOMAIN"),
    Case("a namespace exists: NODATA", "shop.svc.cluster.local", "A"),
    Case("a name above others exists: NODATA", f"_tcp.web.{ALL}", "SRV"),
    Case("a search list applied twice", f"web.{ALL}.{ALL}", "A", (), "NXDOMAIN"),
    Case("a type that nothing has: NODATA", f"web.{ALL}", "MX"),
    Case("the zone's own SOA is not an A: NODATA", "cluster.local", "A"),
    Case("the zone's server", "cluster.local", "NS", ("NS ns.dns.cluster.local.",)),
    Case("the server's address", "ns.dns.cluster.local", "A", ("A 10.96.0.10",)),
    Case("outside cluster.local: NXDOMAIN, nothing is forwarded", "www.example.com", "A", (), "NXDOMAIN"),
)
