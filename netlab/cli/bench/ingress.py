"""Row group `ingress`: a route changed to another Service, from the request to the answer, under 200 requests a second."""

import os
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from netlab.cli.bench.rows import Row, timed

RATE = 200
HOST = "bench.example.com"


def rows(runs: int) -> Sequence[Row]:
    import netlab
    from netlab.kernel.tools import path_of

    found: list[Row] = []
    for proxy in ("haproxy", "nginx"):
        name = f"one route, {proxy}"
        if path_of(proxy) is None:
            found.append(Row(name, (), f"{proxy} is not installed"))
            continue
        with tempfile.TemporaryDirectory() as directory:
            topology = Path(directory) / "topology.yaml"
            topology.write_text(f"cluster: {{ingress: {proxy}}}\n")
            with netlab.up(topology, name=f"bench-{os.getpid()}-{proxy}", proxy="nftables") as lab:
                lab.apply([*backend("one"), *backend("two"), route("one")])
                with lab.load("host/client", f"http://{HOST}/", RATE, expect={"lost": 0}) as load:
                    seconds = tuple(timed(partial(lab.apply, [route(("two", "one")[n % 2])])) for n in range(runs))
                result = load.result()
        note = f"{result.sent} requests meanwhile, {result.lost} lost ({result.verdict})"
        found.append(Row(name, seconds, note, (found[0].name,) if found and found[0].seconds else ()))
    return found


def backend(name: str) -> list[dict[str, Any]]:
    container = {"name": "main", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}
    pod = {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [container]}}
    service = {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]}}
    return [{"apiVersion": "v1", "kind": "Pod", **pod}, {"apiVersion": "v1", "kind": "Service", **service}]


def route(service: str) -> dict[str, Any]:
    backend = {"service": {"name": service, "port": {"number": 80}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": "bench"},
        "spec": {"rules": [{"host": HOST, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]},
    }
