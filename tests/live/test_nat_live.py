"""A translating router with packets: which source a backend sees, and that nothing else gets in."""

from pathlib import Path

import pytest

import netlab
from tests.test_nat import HIDDEN, PLAIN, TOPOLOGY, objects


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_sources(mode: str, tmp_path: Path) -> None:
    found = {}
    for name, nat in (("plain", PLAIN), ("hidden", HIDDEN)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(TOPOLOGY.format(nat=nat))
        with netlab.up(path, manifests=[], proxy=mode) as lab:
            lab.apply(objects())
            local, routed = lab.probe("host/far", "198.51.100.1:8081", count=5), lab.probe("host/far", "192.168.0.10:30002")
            out = lab.probe("node/node-a", "198.51.100.100", protocol="icmp")
            assert [one.why for one in (local, routed, out) if one.verdict != "pass"] == []
            found[name] = (set(local.sources), routed.outcomes["delivered"], set(out.sources))
            assert lab.verify().drift == []
            lab.exec("router/router", ["nft", "flush", "table", "ip", "netlab-nat"], check=True)
            assert lab.verify().drift
            broken = lab.probe("host/far", "198.51.100.1:8081")
            assert broken.verdict == "fail" and broken.outcomes["rejected"] == 1
            lab.verify(repair=True)
            assert lab.probe("host/far", "198.51.100.1:8081").verdict == "pass"
    assert found["plain"] == ({"198.51.100.100"}, 0, {"198.51.100.1"})
    assert found["hidden"] == ({"192.168.0.1"}, 1, {"198.51.100.1"})
