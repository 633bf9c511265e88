"""Pods as they live: what containers share, in which order they start, how they are probed, restarted and stopped."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import ApiError
from tests.waiting import until

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: NAME, labels: {app: NAME}}\nspec:\n"
CLIENT = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: client}\nspec: {containers: [{name: c, image: curl}]}\n"


def service(name: str, port: int) -> str:
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n"
        f"spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: {port}}}]}}\n"
    )


def pod(name: str, spec: str) -> str:
    return "---\n" + POD.replace("NAME", name) + spec


@contextmanager
def running(tmp_path: Path, *documents: str, **options: Any) -> Iterator[Lab]:
    manifest = tmp_path / "pods.yaml"
    manifest.write_text("".join(documents))
    with netlab.up(manifests=[manifest], **options) as lab:
        yield lab


def container(lab: Lab, name: str, which: str = "containerStatuses", at: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = lab.get("pods", name)[0]["status"][which][at]
    return found


PAIR = f"""
  volumes: [{{name: shared, emptyDir: {{}}}}]
  shareProcessNamespace: SHARE
  containers:
  - name: web
    image: x
    command: [{sys.executable}, -m, http.server, "8000", --bind, 127.0.0.1, --directory, /no/such/place]
    volumeMounts: [{{name: shared, mountPath: /no/such/place}}]
  - name: writer
    image: x
    command: [sh, -c, "hostname > /data/index.html; exec sleep 1000"]
    volumeMounts: [{{name: shared, mountPath: /data}}]
"""


@pytest.mark.parametrize("shared", [True, False])
def test_containers_of_a_pod_share_what_kubernetes_says(tmp_path: Path, shared: bool) -> None:
    before = sorted(Path("/").iterdir())
    with running(
        tmp_path, pod("pair", PAIR.replace("SHARE", str(shared).lower())), pod("other", PAIR.replace("SHARE", "false"))
    ) as lab:
        # Network and a volume: the other container's file through the other container's port on localhost.
        ask = ["curl", "-s", "--retry", "20", "--retry-connrefused", "--retry-delay", "0", "http://127.0.0.1:8000/index.html"]
        assert lab.exec("pod/pair", ask, container="writer").stdout == "pair\n"
        # UTS and IPC: a name and a message queue made in one are seen in the other, and not in another pod.
        for kind in ("uts", "ipc", "net"):
            links = [
                lab.exec(f"pod/{name}", ["readlink", f"/proc/self/ns/{kind}"], container=which).stdout
                for name, which in (("pair", "web"), ("pair", "writer"), ("other", "web"))
            ]
            assert links[0] == links[1] != links[2], kind
        assert lab.exec("pod/pair", ["touch", "/dev/shm/mark"], container="web").returncode == 0
        assert "mark" in lab.exec("pod/pair", ["ls", "/dev/shm"], container="writer").stdout
        assert "mark" not in lab.exec("pod/other", ["ls", "/dev/shm"], container="web").stdout
        # PID: the other container's processes only where the pod says so, and never the lab's.
        seen = lab.exec("pod/pair", ["ps", "-eo", "args"], container="writer").stdout
        assert ("http.server" in seen) is shared
        assert "sleep 1000" in seen
    assert sorted(Path("/").iterdir()) == before


def test_init_containers_in_order_and_a_sidecar(tmp_path: Path) -> None:
    mount = "volumeMounts: [{name: d, mountPath: /work}]"
    spec = f"""
  volumes: [{{name: d, emptyDir: {{}}}}]
  initContainers:
  - {{name: one, image: x, command: [sh, -c, "sleep 0.3; date +%s%N > /work/one"], {mount}}}
  - {{name: side, image: x, restartPolicy: Always, command: [sh, -c, "date +%s%N > /work/side; exec sleep 1000"], {mount}}}
  - {{name: two, image: x, command: [sh, -c, "until test -s /work/side; do sleep 0.01; done; date +%s%N > /work/two"], {mount}}}
  containers:
  - {{name: main, image: x, command: [sh, -c, "date +%s%N > /work/main; exec sleep 1000"], {mount}}}
"""
    with running(tmp_path, pod("ordered", spec)) as lab:
        times = until(
            lambda: lab.exec("pod/ordered", ["sh", "-c", "cat /work/one /work/side /work/two /work/main"]).stdout.split(), "order"
        )
        assert len(times) == 4
        assert times == sorted(times)
        side = container(lab, "ordered", "initContainerStatuses", 1)
        assert side["state"].keys() == {"running"}
        assert side["ready"] is True


def test_a_crash_loop_backs_off_and_keeps_what_was_printed(tmp_path: Path) -> None:
    spec = '  containers: [{name: a, image: x, command: [sh, -c, "echo run $(date +%s%N); exit 3"]}]\n'
    topology = tmp_path / "slow.yaml"
    topology.write_text("apiVersion: netlab/v1\nkind: Topology\ncluster: {crashLoopBackOff: {initial: 600ms, max: 1200ms}}\n")
    with running(tmp_path, pod("crash", spec), topology=topology) as lab:
        until(lambda: container(lab, "crash")["restartCount"] >= 4, "restarts")
        status = container(lab, "crash")
        assert status["lastState"]["terminated"]["exitCode"] == 3
        until(lambda: (container(lab, "crash")["state"].get("waiting") or {}).get("reason") == "CrashLoopBackOff", "the word")
        previous, now = lab.logs("pod/crash", previous=True), lab.logs("pod/crash")
        assert previous.startswith("run ")
        gap = int(now.split()[1]) - int(previous.split()[1])
        assert 1.15e9 < gap < 3e9, gap  # its own run apart, the longest back-off


def test_liveness_restarts_and_startup_holds_it_back(tmp_path: Path) -> None:
    spec = """
  volumes: [{name: d, emptyDir: {}}]
  terminationGracePeriodSeconds: 1
  containers:
  - name: a
    image: x
    command: [sh, -c, "touch /work/alive; sleep 1000"]
    volumeMounts: [{name: d, mountPath: /work}]
    startupProbe: {exec: {command: [test, -e, /work/started]}, periodSeconds: 1, failureThreshold: 100}
    livenessProbe: {exec: {command: [test, -e, /work/alive]}, periodSeconds: 1, failureThreshold: 1}
    readinessProbe: {exec: {command: ["true"]}, periodSeconds: 1}
"""
    with running(tmp_path, pod("alive", spec)) as lab:
        lab.exec("pod/alive", ["rm", "/work/alive"], check=True)
        time.sleep(1.5)  # more than a period: whatever liveness would have done is done
        status = container(lab, "alive")
        assert (status["restartCount"], status["started"], status["ready"]) == (0, False, False)
        lab.exec("pod/alive", ["touch", "/work/started"], check=True)
        until(lambda: container(lab, "alive")["restartCount"] == 1, "the restart")
        until(lambda: container(lab, "alive")["ready"], "ready again")
        assert container(lab, "alive")["lastState"]["terminated"]["exitCode"] == 143
        time.sleep(1.2)
        assert container(lab, "alive")["restartCount"] == 1


def test_probes_come_from_the_node_with_their_headers(tmp_path: Path) -> None:
    server = tmp_path / "server.py"
    server.write_text(
        "import http.server, json\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        print(json.dumps([self.client_address[0], self.path, dict(self.headers)]), flush=True)\n"
        "        self.send_response(204); self.end_headers()\n"
        "http.server.HTTPServer(('', 8000), H).serve_forever()\n"
    )
    spec = f"""
  containers:
  - name: a
    image: x
    command: [{sys.executable}, {server}]
    readinessProbe: {{httpGet: {{path: "/healthz?x=1", port: 8000, httpHeaders: [{{name: X-Probe, value: "yes"}}]}}}}
"""
    with running(tmp_path, pod("asked", spec)) as lab:
        until(lambda: container(lab, "asked")["ready"], "ready")
        source, path, headers = json.loads(lab.logs("pod/asked").splitlines()[0])
        node = lab.get("pods", "asked")[0]["spec"]["nodeName"]
        own = [a["local"] for link in lab.node(node).addresses() for a in link["addr_info"]]
        assert source in own
        assert path == "/healthz?x=1"
        assert headers["X-Probe"] == "yes"
        assert headers["User-Agent"].startswith("kube-probe/")


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_terminating_pod_serves_and_its_connections_live(tmp_path: Path, mode: str) -> None:
    spec = (
        "  containers: [{name: a, image: luksa/kubia, ports: [{containerPort: 8080}], "
        "lifecycle: {preStop: {sleep: {seconds: 3}}}}]\n"
    )
    with running(tmp_path, pod("leaver", spec), service("leaver", 8080), CLIENT, proxy=mode) as lab:
        with lab.connect("pod/client", "svc/leaver") as connection:
            lab.delete("pod", "leaver", wait=False)
            endpoint = lab.get("endpointslices", selector="kubernetes.io/service-name=leaver")[0]["endpoints"][0]
            assert endpoint["conditions"] == {"ready": False, "serving": True, "terminating": True}
            # The only endpoint is terminating and still serves: kube-proxy falls back to it.
            result = lab.probe("pod/client", "svc/leaver", count=5, protocol="http")
            assert (result.verdict, result.outcomes["delivered"]) == ("pass", 5)
            assert connection.use()
            until(lambda: not lab.get("pods", selector="app=leaver"), "gone")
            assert not connection.use(timeout_s=0.3)
        after = lab.probe("pod/client", "svc/leaver", count=3)
        assert (after.verdict, after.outcomes["rejected"]) == ("pass", 3)


def test_a_program_is_told_and_then_killed(tmp_path: Path) -> None:
    deaf = tmp_path / "deaf.sh"
    deaf.write_text('trap "echo told" TERM\necho listening\nwhile :; do sleep 0.05; done\n')
    spec = f"  terminationGracePeriodSeconds: GRACE\n  containers: [{{name: a, image: x, command: [sh, {deaf}]}}]\n"
    with running(tmp_path, pod("deaf", spec.replace("GRACE", "4")), pod("deafer", spec.replace("GRACE", "60"))) as lab:
        for name in ("deaf", "deafer"):
            until(lambda name=name: "listening" in lab.logs(f"pod/{name}"), "started")  # type: ignore[misc]  # bound now
        begun = time.monotonic()
        lab.delete("pod", "deaf", wait=False)
        until(lambda: "told" in lab.logs("pod/deaf"), "SIGTERM")
        until(lambda: not lab.get("pods", selector="app=deaf"), "SIGKILL")
        assert time.monotonic() - begun > 3.9
        lab.delete("pod", "deafer", wait=False)
        assert lab.get("pods", "deafer")[0]["metadata"]["deletionGracePeriodSeconds"] == 60
        begun = time.monotonic()
        lab.delete("pod", "deafer", grace_s=0)
        assert time.monotonic() - begun < 50, "its 60 seconds were not waited for"
        with pytest.raises(ApiError):
            lab.get("pods", "deafer")
        assert "deaf" not in json.dumps(lab.verb("processes")["containers"])


def test_a_deleted_pod_is_replaced_elsewhere_in_the_addresses(tmp_path: Path) -> None:
    with netlab.up(manifests=["manifests/kubia.yaml"]) as lab:
        before = {one["status"]["podIP"] for one in lab.get("pods", selector="app=kubia")}
        lab.fault("kill-pod", "rc/kubia")
        after = {one["status"]["podIP"] for one in lab.get("pods", selector="app=kubia")}
        assert len(after) == len(before)
        assert len(after & before) == len(before) - 1  # the new one has an address that was nobody's


@pytest.mark.parametrize("target", ["pod/kubia", "svc/kubia"])
def test_port_forward(tmp_path: Path, target: str) -> None:
    with netlab.up(manifests=["manifests/kubia.yaml"]) as lab:
        name = lab.get("pods", selector="app=kubia")[0]["metadata"]["name"]
        where = target if target.startswith("svc") else f"pod/{name}"
        port = ":80" if target.startswith("svc") else ":8080"
        command = [sys.executable, "-m", "netlab", "port-forward", "--lab", lab.name, where, port]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Forwarding from 127.0.0.1:"), line
            local = int(line.split(":")[1].split(" ")[0])
            answers = [
                subprocess.run(
                    ["curl", "-s", "-m", "5", f"http://127.0.0.1:{local}/"], capture_output=True, text=True, check=True
                )
                for _ in range(3)
            ]
            hit = {answer.stdout.strip() for answer in answers}
            assert len(hit) == 1
            (text,) = hit
            assert text.startswith("You've hit kubia-")
            victim = text.split()[-1]
            assert process.stdout.readline() == f"Handling connection for {local}\n"
            lab.delete("pod", victim)
            assert process.wait(timeout=60) == 2
            assert process.stderr is not None
            assert "lost connection to pod" in process.stderr.read()
        finally:
            process.kill()
            process.communicate()


def test_logs_are_followed_across_a_restart(tmp_path: Path) -> None:
    spec = '  containers: [{name: a, image: x, command: [sh, -c, "echo begun; sleep 0.7; echo over; exit 1"]}]\n'
    with running(tmp_path, pod("talker", spec)) as lab:
        command = [sys.executable, "-m", "netlab", "logs", "--lab", lab.name, "-f", "talker"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        ender = threading.Timer(60, process.kill)
        ender.start()
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(4)] == ["begun\n", "over\n", "begun\n", "over\n"]
        finally:
            ender.cancel()
            process.kill()
            process.communicate()


def test_variables_and_files(tmp_path: Path) -> None:
    spec = """
  volumes:
  - {name: conf, configMap: {name: conf, items: [{key: a.conf, path: sub/b.conf}]}}
  - {name: info, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
  containers:
  - name: a
    image: x
    command: [sh, -c, 'echo "$1"; env; cat /conf/sub/b.conf /info/labels; exec sleep 1000', --, "$(WHO) $$(WHO) $(NOBODY)"]
    envFrom: [{configMapRef: {name: conf}, prefix: C_}]
    env:
    - {name: WHO, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: WHERE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: URL, value: "http://$(IP)/$(WHO)"}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: secret, key: word}}}
    - {name: MAYBE, valueFrom: {secretKeyRef: {name: none, key: word, optional: true}}}
    volumeMounts: [{name: conf, mountPath: /conf}, {name: info, mountPath: /info}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: conf}
data: {a.conf: "text of a\\n", plain: value}
---
apiVersion: v1
kind: Secret
metadata: {name: secret}
data: {word: c2VzYW1l}
"""
    with running(tmp_path, pod("told", spec)) as lab:
        until(lambda: "app=" in lab.logs("pod/told"), "output")
        lines = lab.logs("pod/told").splitlines()
        shown = lab.get("pods", "told")[0]
        assert lines[0] == "told $(WHO) $(NOBODY)"
        variables = dict(line.partition("=")[::2] for line in lines if "=" in line)
        assert variables["WHO"] == "told"
        assert variables["WHERE"] == shown["spec"]["nodeName"]
        assert variables["URL"] == "http://$(IP)/told"  # IP is defined after it
        assert variables["IP"] == shown["status"]["podIP"]
        assert (variables["PASSWORD"], variables["C_plain"]) == ("sesame", "value")
        assert "MAYBE" not in variables
        assert "text of a" in lines
        assert 'app="told"' in lines


def test_everything_of_a_pod_is_gone_with_it(tmp_path: Path) -> None:
    with running(tmp_path, pod("pair", PAIR.replace("SHARE", "true"))) as lab:
        uid = lab.get("pods", "pair")[0]["metadata"]["uid"]
        find = ["find", "/", "-xdev", "-name", uid]
        files = lab.exec("node/node-169", ["sh", "-c", "mount | grep -o ' /.*/fs ' | head -1"]).stdout.strip()
        find[1] = files
        assert uid in lab.exec("node/node-169", find).stdout
        processes = lab.exec("node/node-169", ["ps", "-eo", "args"]).stdout
        assert "sleep 1000" in processes
        lab.delete("pod", "pair")
        until(lambda: uid not in lab.exec("node/node-169", find).stdout, "its directories")
        assert "sleep 1000" not in lab.exec("node/node-169", ["ps", "-eo", "args"]).stdout
