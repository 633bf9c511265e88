"""Health checks of a running lab: their sockets stay open while what they say changes."""

import json

import pytest

import netlab
from tests import spec

CASE = next(case for case in spec.load_cases() if case.id == "hc-01")
CHECK = "http://192.168.50.10:31000/"


@pytest.mark.parametrize("mode", spec.CHAINS)
def test_the_count_follows_the_endpoints(mode: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("health")
    topology, manifest = directory / "topology.json", directory / "manifest.json"
    topology.write_text(json.dumps(spec.topology_of(CASE, mode)))
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": spec.manifests_of(CASE)}))
    with netlab.up(topology, manifests=[manifest]) as lab:

        def said(url: str = CHECK) -> tuple[int, str]:
            (answer,) = lab.probe("host/client", url).document["http"]
            assert "x-netlab-pod" not in answer["headers"]
            return answer["status"], answer["body"]

        def inode() -> str:
            done = lab.exec("node/node-a", ["cat", "/proc/net/tcp"], check=True)
            rows = [line.split() for line in done.stdout.splitlines()]
            (listening,) = [row for row in rows if row[1].endswith(":7918") and row[3] == "0A"]
            return listening[9]

        before = inode()
        assert said()[0] == 200
        after = CASE.without("10.244.1.5")
        lab.apply([one for one in spec.manifests_of(after) if one["kind"] == "EndpointSlice"])
        status, body = said()
        assert (status, json.loads(body)["localEndpoints"]) == (503, 0)
        assert said("http://192.168.50.11:31000/")[0] == 200
        assert said("http://192.168.50.10:10256/healthz")[0] == 200
        assert inode() == before
        assert lab.verify().drift == []
        lab.delete("service", "web")
        assert lab.probe("host/client", "192.168.50.10:31000").outcomes["rejected"] == 1
