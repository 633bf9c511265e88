"""Connections held open: established TCP outlives changes of its Service, and what breaks one is seen."""

import pytest

import netlab
from netlab.errors import ApiError, InputError

KUBIA = "manifests/kubia.yaml"


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_connection_outlives_its_service_but_not_its_network(mode: str) -> None:
    with netlab.up(manifests=[KUBIA], proxy=mode) as lab:
        with lab.connect("pod/client", "svc/kubia") as first, lab.connect("host/client", "svc/kubia") as second:
            assert first.backend in lab.endpoints("svc/kubia")
            assert first.backend == f"pod/default/{first.answer}"
            lab.delete("service", "kubia")
            assert first.use() and second.use() and first.use()
            with pytest.raises(ApiError, match="cannot connect"):
                lab.connect("pod/client", first.result.to.removesuffix("/tcp"), timeout_s=0.3)
            lab.fault("link-down", "pod/client")
            assert not first.use(timeout_s=0.3)
            assert first.problem
            assert second.use()
        with pytest.raises(InputError, match="no connection"):
            first.use()


def test_conntrack_shows_who_talked_to_whom() -> None:
    with netlab.up(manifests=[KUBIA], proxy="nftables") as lab, lab.connect("host/client", "svc/kubia") as connection:
        rows = [row for row in lab.node("node-169").conntrack() if row["state"] == "ESTABLISHED"]
        (names,) = [row["names"] for row in rows if row["names"]["dst"].startswith("svc/default/kubia")]
        assert names["src"] == "host/client"
        assert names["reply_src"] == connection.backend
        assert names["reply_dst"].startswith("node/")
        # Probes prove their watchers with packets from port 1 to port 1: no traffic of the lab's.
        lab.probe("node/node-169", "192.168.0.170:9", protocol="udp", timeout_s=0.3)
        rows = [row for row in lab.node("node-169").conntrack() if row["protocol"] == "udp"]
        assert rows and not [row for row in rows if row["sport"] == row["dport"] == 1]
