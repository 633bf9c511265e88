"""The spec cases as manifests and topology files mean the same as the values made by hand, so that all suites ask alike."""

import json

import pytest

from netlab import controllers, manifest
from netlab.expect import expect
from tests import spec


@pytest.mark.parametrize("mode", spec.MODES)
def test_manifests_of_every_case_mean_the_same(mode: str) -> None:
    for case in (*spec.load_cases(), *spec.load_verdicts()):
        topology = manifest.read_topology(manifest.Source("topology.yaml", json.dumps(spec.topology_of(case, mode)).encode()))
        listed = {"apiVersion": "v1", "kind": "List", "items": spec.manifests_of(case)}
        loaded = manifest.read_objects((manifest.Source("case.yaml", json.dumps(listed).encode()),))
        assert loaded.warnings == (), case.id
        read = controllers.initial(manifest.adapt_topology(topology, loaded.objects), loaded.objects)
        made = spec.cluster_of(case, mode)
        for packet in case.packets:
            flow = spec.flow_of(packet, case)
            ours, theirs = expect(made, flow), expect(read, flow)
            assert theirs == ours, case.id
            assert [b.fate for b in theirs.backends] == [b.fate for b in ours.backends], case.id
