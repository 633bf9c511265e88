"""A lab and its twin in another mode: the same cluster, the same pairs, and differences that are the known ones."""

import netlab
from netlab.cli import comparing
from netlab.cli.lab import described
from netlab.cli.probing import probe_text
from netlab.client import labs
from netlab.model import Key
from netlab.observe import explain_text

KUBIA = "manifests/kubia.yaml"


def test_a_twin_is_the_same_lab_in_another_mode() -> None:
    with netlab.up(manifests=[KUBIA], proxy="iptables") as lab:
        before = lab.cluster()
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
        assert [one.name for one in labs() if one.name.startswith(lab.name)] == [lab.name], "its twins have gone"
        assert "layout" not in found.pairs[0].results["nftables"] and found.pairs[0].results["nftables-maps"]["layout"] == "maps"
        assert all("layout" not in described(one) for one in labs() if one.name == lab.name)
        with lab.twin("nftables-maps") as twin:
            assert twin.cluster().topology.cluster.proxy.layout == "maps"
            assert twin.cluster().pods.keys() == before.pods.keys()
            assert twin.verify().drift == []
            told(twin)


def told(lab: netlab.Lab) -> None:
    """The mode is told as ever, the layout beside it: results of both layouts can be told apart."""
    probe, matrix = lab.probe("pod/client", "svc/kubia"), lab.matrix(["pod/client"], ["svc/kubia"])
    for one in (probe, *matrix):
        assert (one.proxy, one.json()["proxy"], one.json()["layout"], one.variant) == (
            "nftables",
            "nftables",
            "maps",
            "nftables-maps",
        )
    assert "(nftables-maps)" in probe_text(probe.json(), colour=False)
    story = lab.explain("pod/client", "svc/kubia")
    assert (story["proxy"], story["layout"]) == ("nftables", "maps")
    assert explain_text.text(story).splitlines()[0].endswith("(nftables-maps)")
    listed = next(one for one in labs() if one.name == lab.name)
    assert (described(listed)["proxy"], described(listed)["layout"]) == ("nftables", "maps")
