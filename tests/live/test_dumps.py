"""Dumps of live clusters, as `kubectl get svc,endpointslices,pods,nodes -A -o yaml` prints them, come up and route."""

import pytest

import netlab

DUMPS = ["kubeadm", "k3s", "article"]


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize("dump", DUMPS)
def test_a_dump_comes_up_with_its_addresses_and_routes(dump: str, mode: str) -> None:
    with netlab.up(manifests=[f"tests/dumps/{dump}.yaml"], proxy=mode) as lab:
        pods = [pod for pod in lab.get("pods", namespace=None) if pod["status"].get("podIP")]
        sender = next(pod for pod in pods if not pod["spec"].get("hostNetwork"))["metadata"]
        asked = 0
        for service in lab.get("services", namespace=None):
            names = lab.endpoints(f"{service['metadata']['namespace']}/{service['metadata']['name']}")
            if (
                service["spec"].get("clusterIP", "None") == "None"
                or not names
                or not all(name.startswith("pod/") for name in names)
            ):
                continue
            for port in service["spec"]["ports"]:
                if port["protocol"] != "TCP":
                    continue
                result = lab.probe(
                    f"pod/{sender['namespace']}/{sender['name']}", f"{service['spec']['clusterIP']}:{port['port']}", count=30
                )
                assert result.verdict == "pass", result
                asked += 1
        assert asked >= 2
