"""Ingress, live: the conformance rows against the real proxies, changes under load, TLS, what dies, and what is missing.

Every answer's evidence is the answer itself: the pod's own name in it, and the proxy's mark.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import MachineError
from tests.ingress_cases import CASES, DEFAULT_CASES, Case, all_objects, backends, host_of
from tests.waiting import until, until_equal

ASK = """
import http.client, json, sys
found = []
for address, host, path in json.load(sys.stdin):
    connection = http.client.HTTPConnection(address, 80, timeout=30)
    connection.putrequest("GET", path, skip_host=True)
    connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    found.append([answer.status, answer.headers.get("X-Netlab-Pod", ""), answer.headers.get("X-Netlab-Ingress", "")])
    connection.close()
json.dump(found, sys.stdout)
"""


def topology(directory: Path, proxy: str, upstream: str = "endpoints") -> Path:
    path = directory / "topology.yaml"
    path.write_text(f"cluster: {{ingress: {{proxy: {proxy}, upstream: {upstream}}}}}\n")
    return path


@pytest.fixture(scope="module", params=["haproxy", "nginx"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if not shutil.which(request.param, path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"):
        pytest.skip(f"{request.param} is not installed")
    with netlab.up(topology(tmp_path_factory.mktemp("t"), request.param), proxy="nftables") as made:
        made.apply(backends())
        yield made


def proxy_of(lab: Lab) -> str:
    return next(str(one["metadata"]["name"]) for one in lab.get("ingressclasses", namespace=None))


def ask(lab: Lab, asked: list[tuple[str, str, str]]) -> list[list[Any]]:
    """[status, pod, proxy] of each (address, host, path), asked from outside."""
    done = lab.exec("host/client", [sys.executable, "-c", ASK], stdin=json.dumps(asked), check=True, timeout_s=60)
    return list(json.loads(done.stdout))


@pytest.mark.parametrize("cases", [CASES, DEFAULT_CASES], ids=["rules", "default backend"])
def test_every_row_is_answered_as_the_api_documents(lab: Lab, cases: tuple[Case, ...]) -> None:
    lab.apply(all_objects(cases))
    try:
        asked = [("192.168.0.171", host_of(cases, number), case.path) for number, case in enumerate(cases)]
        wrong = {}
        for case, (status, pod, proxy) in zip(cases, ask(lab, asked), strict=True):
            found = pod if status == 200 else status
            if found != case.want or (status == 200 and proxy != proxy_of(lab)):
                wrong[case.name] = (status, pod, proxy, case.want)
        assert wrong == {}
    finally:
        for one in all_objects(cases):
            lab.delete("ingress", one["metadata"]["name"])
    (gone,) = ask(lab, [("192.168.0.171", host_of(cases, 0), "/")])
    assert gone[:2] == [404, ""], "without its Ingress nobody answers"


def web(name: str, service: str, host: str, path: str = "/", **spec: Any) -> dict[str, Any]:
    backend = {"service": {"name": service, "port": {"number": 80}}}
    rules = [{"host": host, "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}]
    return {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name}, "spec": {"rules": rules, **spec}}


def test_a_probe_says_which_pods_must_answer_and_that_they_did(lab: Lab) -> None:
    lab.apply([web("probed", "one", "probed.example.com")])
    found = lab.probe("host/client", "http://probed.example.com/", count=5).json()
    assert found["verdict"] == "pass", found["why"]
    assert found["route"]["backends"] == {"pod/default/one": 5}
    assert set(found["route"]["sources"]) <= {"192.168.0.169", "10.244.0.1"}, "the pod sees the node"
    assert (found["route"]["ingress"], found["route"]["service"]) == ("default/probed", "svc/default/one:80")
    for to, status in (("http://192.168.0.170/", 404), ("http://probed.example.com/x", 0)):
        assert lab.probe("host/client", to).json()["route"]["expected"]["status"] in (status, "of the backend")
    by_name = lab.exec("host/client", ["curl", "-s", "http://probed.example.com/"])
    assert by_name.stdout == "You've hit one\n"
    nodes = ["192.168.0.169", "192.168.0.170", "192.168.0.171"]
    assert [one["ip"] for one in lab.get("ingress", "probed")[0]["status"]["loadBalancer"]["ingress"]] == nodes
    assert {pod for _, pod, _ in ask(lab, [(node, "probed.example.com", "/") for node in nodes])} == {"one"}


def test_a_wrong_pod_behind_a_route_fails_the_probe(lab: Lab) -> None:
    """The proxy is told a lie: its memory of a route is changed behind the lab's back."""
    if proxy_of(lab) != "haproxy":
        pytest.skip("haproxy's routes can be changed from outside")
    lab.apply([web("lied", "one", "lied.example.com"), web("truth", "two", "truth.example.com")])
    socket = f"{lab.directory}/fs/ingress/pod/ingress-controller"
    script = (
        "import glob,os,socket,sys\n"
        "for d in glob.glob(sys.argv[1] + '/*'):\n"
        "    os.chdir(d); s = socket.socket(socket.AF_UNIX); s.connect('runtime.sock')\n"
        "    s.sendall(b'show map prefix.map\\n'); m = dict(l.split()[1:3] for l in s.makefile().read().splitlines() if l)\n"
        "    s = socket.socket(socket.AF_UNIX); s.connect('runtime.sock')\n"
        "    s.sendall(f\"set map prefix.map lied.example.com/ {m['truth.example.com/']}\\n\".encode()); s.recv(99)\n"
    )
    lab.exec("node/node-169", [sys.executable, "-c", script, socket], check=True)
    found = lab.probe("host/client", "http://lied.example.com/")
    assert found.verdict == "fail"
    assert "pod/default/two answered, which is no endpoint of svc/default/one:80" in found.why
    drift = lab.verify().drift
    assert len(drift) == 3, drift
    assert "the prefix route lied.example.com/ leads to default/two/http, not to default/one/http" in drift[0]
    lab.verify(repair=True)
    assert lab.verify().drift == []
    assert lab.probe("host/client", "http://lied.example.com/").verdict == "pass"


def test_route_changes_under_load_lose_no_request(lab: Lab) -> None:
    count = 100 if proxy_of(lab) == "haproxy" else 10
    lab.apply([web("loaded", "one", "loaded.example.com")])
    reloads = {pod: one["reloads"] for pod, one in lab.verb("ingresses").items()}
    with lab.load("host/client", "http://loaded.example.com/", 100, keep_alive=True, expect={"lost": 0}) as load:
        for number in range(count):
            lab.apply(
                [
                    web("loaded", ("two", "one")[number % 2], "loaded.example.com"),
                    web(f"other-{number % 7}", "three", f"o{number}.example.com"),
                ]
            )
    result = load.result()
    assert result.lost == 0, result.why
    assert result.verdict in ("pass", "inconclusive"), result.why
    assert result.backends.keys() == {"pod/default/one", "pod/default/two"}
    if proxy_of(lab) == "haproxy":
        assert {pod: one["reloads"] for pod, one in lab.verb("ingresses").items()} == reloads


def test_pods_that_come_and_go_under_load_lose_no_request(lab: Lab) -> None:
    container = {"name": "c", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}
    template = {"metadata": {"labels": {"app": "many"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "many"}}, "template": template}
    service = {"selector": {"app": "many"}, "ports": [{"port": 80, "targetPort": 8080}]}
    lab.apply(
        [
            {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"}, "spec": spec},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "many"}, "spec": service},
            web("many", "many", "many.example.com"),
        ]
    )
    with lab.load("host/client", "http://many.example.com/", 100, expect={"lost": 0}) as load:
        for replicas in (5, 2, 4, 3, 6, 2):  # of one pod alone that is killed, nobody else could answer
            lab.scale("deployment", "many", replicas)
            lab.fault("kill-pod", "deploy/many")
    assert load.result().lost == 0, load.result().why
    assert len(load.result().backends) > 6


def test_a_refusing_endpoint_is_told_soon_and_passed_over(lab: Lab) -> None:
    """One pod listens at another port than the Service says: alone it is an error, beside another nobody notices."""
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "refusing"}},
         "spec": {"containers": [{"name": "c", "image": "luksa/kubia", "ports": [{"containerPort": port}]}]}}
        for name, port in (("deaf", 9999), ("hears", 8080))
    ]  # fmt: skip
    service = {"selector": {"app": "refusing"}, "ports": [{"port": 80, "targetPort": 8080}]}
    made = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "refusing"}, "spec": service}
    lab.apply([pods[0], made, web("refusing", "refusing", "refusing.example.com")])
    fetch = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-m", "30", "http://refusing.example.com/"]
    before = resets(lab, "pod/deaf")
    assert lab.exec("host/client", fetch).stdout in ("502", "503")
    assert 1 <= resets(lab, "pod/deaf") - before <= 2, "asked once, and at most once more: five tries take five seconds"
    lab.apply([pods[1]])
    for _ in range(6):
        assert lab.exec("host/client", fetch).stdout == "200"


def resets(lab: Lab, pod: str) -> int:
    """How many connections the pod has refused, by its own kernel's count (TCP's OutRsts)."""
    names, values = (
        line.split() for line in lab.exec(pod, ["cat", "/proc/net/snmp"]).stdout.splitlines() if line.startswith("Tcp:")
    )
    return int(values[names.index("OutRsts")])


def certificate(directory: Path, host: str) -> dict[str, Any]:
    """A TLS Secret with a self-signed certificate."""
    key, crt = directory / f"{host}.key", directory / f"{host}.crt"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(
        [*command, "-keyout", key, "-out", crt, "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"],
        check=True,
        capture_output=True,
    )
    data = {"tls.crt": crt.read_text(), "tls.key": key.read_text()}
    meta = {"name": host.replace(".", "-")}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta, "stringData": data}


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificates")
def test_tls_shows_each_host_its_own_certificate(lab: Lab, tmp_path: Path) -> None:
    hosts = {"s1.example.com": "one", "s2.example.com": "two"}
    for host, service in hosts.items():
        secret = certificate(tmp_path, host)
        tls = [{"hosts": [host], "secretName": secret["metadata"]["name"]}]
        lab.apply([secret, web(host.replace(".", "-"), service, host, tls=tls)])

    def fetch(trusted: str, host: str) -> "subprocess.CompletedProcess[str]":
        resolve = ["--resolve", f"{host}:443:192.168.0.170", "--cacert", str(tmp_path / f"{trusted}.crt")]
        return lab.exec("host/client", ["curl", "-s", *resolve, f"https://{host}/"])

    for host, service in hosts.items():
        assert fetch(host, host).stdout == f"You've hit {service}\n"
    assert fetch("s1.example.com", "s2.example.com").returncode != 0, "the other host has another certificate"


def test_a_killed_proxy_and_a_killed_controller_come_back(lab: Lab) -> None:
    lab.apply([web("killed", "one", "killed.example.com")])
    curl = ["curl", "-s", "-m", "5", "-H", "Host: killed.example.com"]
    nodes = ("192.168.0.169", "192.168.0.170", "192.168.0.171")
    for prefix in (f"{proxy_of(lab)}-", "ingress-"):
        name, pid = next((name, pid) for name, pid in lab.verb("processes")["agents"].items() if name.startswith(prefix))
        lab.exec("node/node-169", ["kill", "-KILL", str(pid)], check=True)
        until_another(lab, name, pid)
        until_equal(lambda: [lab.exec("host/client", [*curl, node]).stdout for node in nodes], ["You've hit one\n"] * 3)
        assert lab.verify().drift == []


def until_another(lab: Lab, name: str, pid: int) -> None:
    until(lambda: lab.verb("processes")["agents"].get(name, 0) not in (0, pid), f"{name} did not come back")


def test_a_proxy_that_dies_again_and_again_keeps_nobody_waiting(lab: Lab) -> None:
    """The next start is put off further each time; the agent answers all the while, and gives the proxy its table in the end."""
    lab.apply([web("again", "one", "again.example.com")])
    name = next(name for name in lab.verb("processes")["agents"] if name.startswith(f"{proxy_of(lab)}-"))
    pod = next(pod for pod in lab.verb("ingresses") if pod.endswith(name.partition("-")[2]))
    before = lab.verb("ingresses")[pod]["restarts"]
    for number in range(1, 4):
        pid = running_pid(lab, pod)
        lab.exec("node/node-169", ["kill", "-KILL", str(pid)], check=True)
        until_restarted(lab, pod, before + number)
    running_pid(lab, pod)
    nodes = [f"192.168.0.{number}" for number in (169, 170, 171)]
    again = ["--retry", "20", "--retry-connrefused", "-m", "60"]
    done = lab.exec("host/client", ["curl", "-s", *again, "-H", "Host: again.example.com", *nodes])
    assert done.stdout == "You've hit one\n" * 3
    assert lab.verify().drift == []


def until_restarted(lab: Lab, pod: str, times: int) -> None:
    until(lambda: lab.verb("ingresses")[pod]["restarts"] >= times, f"the proxy of {pod} was not started again")


def running_pid(lab: Lab, pod: str) -> int:
    return int(until(lambda: lab.verb("ingresses")[pod]["pid"], f"the proxy of {pod} does not run"))


def test_upstream_service_goes_through_the_cluster_ip(tmp_path: Path) -> None:
    with netlab.up(topology(tmp_path, "haproxy", "service"), proxy="iptables") as lab:
        lab.apply([*backends(), web("web", "one", "a.example.com")])
        assert lab.probe("host/client", "http://a.example.com/", count=5).verdict == "pass"
        service = lab.get("services", "one")[0]["spec"]["clusterIP"]
        assert service in {row["dst"] for row in lab.node("node-169").conntrack()}


def test_a_missing_proxy_is_said_before_anything_is_built(tmp_path: Path) -> None:
    if shutil.which("traefik"):
        pytest.skip("traefik is here")
    with pytest.raises(MachineError, match="proxy traefik is missing: it is in no Debian package") as caught:
        netlab.up(topology(tmp_path, "traefik"))
    assert caught.value.exit_code == 3


def test_no_proxy_outlives_its_lab(tmp_path: Path) -> None:
    for proxy in ("haproxy", "nginx"):
        if not shutil.which(proxy, path="/usr/sbin:/usr/bin"):
            continue
        lab = netlab.up(topology(tmp_path, proxy), proxy="nftables")
        here = str(lab.directory)
        assert len(processes_in(here)) >= 6, "an agent and a proxy on each of three nodes"
        os.kill(lab.pid, signal.SIGKILL)
        until_equal(partial(processes_in, here), [])
        lab.down()


def processes_in(directory: str) -> list[int]:
    """The processes that work in the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(directory):
                found.append(int(entry.name))
    return found
