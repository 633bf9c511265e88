"""The VM's kernel has what this machine's may lack, for root and for an ordinary user alike."""

import json
import os
import subprocess
import sys

import pytest

from netlab.kernel import namespaces as ns
from tests.live import kernel_sandbox


def checks() -> dict[str, bool]:
    shown = subprocess.run([sys.executable, "-m", "netlab", "doctor", "-o", "json"], capture_output=True, text=True, check=True)
    return {row["name"]: row["ok"] for row in json.loads(shown.stdout)["checks"]}


@pytest.mark.needs_ip_vs
@pytest.mark.needs_netem
def test_doctor_finds_every_mode_and_every_impairment() -> None:
    found = checks()
    names = (
        "IPVS",
        "ipset (kernel)",
        "link dummy",
        "qdisc netem",
        "qdisc tbf",
        "nftables",
        "iptables (nft)",
        "iptables (legacy)",
        "br_netfilter",
    )
    assert {name: found[name] for name in names} == dict.fromkeys(names, True)


def _netem(way: str) -> None:
    assert way in ("root", "user")
    commands = (["ip", "link", "set", "lo", "up"], ["tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", "100%"])
    for command in commands:
        subprocess.run(command, check=True)
    lost = subprocess.run(["ping", "-c", "1", "-W", "1", "127.0.0.1"], capture_output=True, text=True, check=False)
    assert "100% packet loss" in lost.stdout, lost.stdout
    subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)
    subprocess.run(["ping", "-c", "1", "-W", "1", "127.0.0.1"], stdout=subprocess.DEVNULL, check=True)


@pytest.mark.needs_netem
@pytest.mark.parametrize("way", kernel_sandbox.WAYS)
def test_netem_loses_packets_in_namespaces_of_either_user(way: str) -> None:
    kernel_sandbox.run(way, _netem, way)


@pytest.mark.needs_ip_vs
@pytest.mark.skipif(os.geteuid() != 0, reason="ipvsadm wants to be root")
def test_ip_vs_takes_a_virtual_server() -> None:
    def body() -> None:
        ns.unshare(ns.CLONE_NEWNET)
        subprocess.run(["ipvsadm", "-A", "-t", "10.0.0.1:80", "-s", "rr"], check=True)
        shown = subprocess.run(["ipvsadm", "-Ln"], capture_output=True, text=True, check=True).stdout
        assert "TCP  10.0.0.1:80 rr" in shown

    kernel_sandbox.run("root", body)
