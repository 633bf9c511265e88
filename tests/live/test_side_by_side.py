"""A lab and its twin in another mode: the same cluster, the same pairs, and differences that are the known ones."""

import netlab
from netlab.cli import comparing
from netlab.client import labs
from netlab.model import Key

KUBIA = "manifests/kubia.yaml"


def test_a_twin_is_the_same_lab_in_another_mode() -> None:
    with netlab.up(manifests=[KUBIA], proxy="iptables") as lab:
        before, alive = lab.cluster(), {one.name for one in labs()}
        to = ["svc/kubia", f"{before.services[Key('default', 'kubia')].cluster_ips[0]}:81"]
        found = comparing.matrix(lab, ["pod/client", "node/node-170", "host/client"], to)
        assert [mode for mode in found.modes if mode != "ipvs"] == ["iptables", "nftables", "nftables-maps", "userspace"]
        assert found.exit_code == 0, comparing.summary(found, colour=False)
        undeclared = [pair for pair in found.disagreements if pair.to.partition("/")[0] == to[1]]
        assert len(undeclared) == 3
        assert all(20 in dict(pair.explained) for pair in undeclared)
        # What else differs is userspace, whose pods see the node's address.
        assert all(0 in dict(pair.explained) for pair in found.disagreements if pair not in undeclared)
        backends = {tuple(sorted(result["expected"]["backends"])) for result in found.pairs[0].results.values()}
        assert backends == {tuple(sorted(lab.endpoints("svc/kubia")))}
        assert {one.name for one in labs()} == alive
        with lab.twin("nftables-maps") as twin:
            assert twin.cluster().topology.cluster.proxy.layout == "maps"
            assert twin.cluster().pods.keys() == before.pods.keys()
            assert twin.verify().drift == []
