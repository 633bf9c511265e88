"""Routing `vxlan` with packets: the MTU passes and one byte more does not, large transfers arrive, LANs see no pod address."""

import json
import threading
from collections.abc import Iterator

import pytest

import netlab
from netlab.client import Lab

PING = """
import json, socket, sys
address, payload = sys.argv[1], int(sys.argv[2])
v6 = ":" in address
family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
sock = socket.socket(family, socket.SOCK_DGRAM, protocol)
sock.setsockopt(*((socket.IPPROTO_IPV6, 23, 2) if v6 else (socket.IPPROTO_IP, 10, 2)))  # IP(V6)_MTU_DISCOVER: never fragment
sock.settimeout(30)
try:
    sock.sendto(bytes((128 if v6 else 8, 0, 0, 0, 0, 0, 0, 1)) + b"x" * payload, (address, 0))
    print(len(sock.recv(65536)) - 8)
except OSError as error:
    print(error.strerror or "timeout")
"""
SERVER = """
import hashlib, socket
listener = socket.create_server(("::", 9000), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    sock, _ = listener.accept()
    digest = hashlib.sha256()
    with sock:
        while data := sock.recv(1 << 16):
            digest.update(data)
        sock.sendall(digest.hexdigest().encode())
"""
UPLOAD = """
import hashlib, socket, sys
data = bytes(range(256)) * (20 << 12)
with socket.create_connection((sys.argv[1], 9000), timeout=20) as sock:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    print(sock.recv(64).decode() == hashlib.sha256(data).hexdigest(), len(data))
"""
SNIFF = """
import json, select, socket, sys, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind(("eth0", 0))
print("ready", file=sys.stderr)
seen, end = [], time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    if select.select([sock], [], [], 0.05)[0]:
        frame = sock.recv(4096)
        if frame[12:14] == b"\\x08\\x00":
            source, target = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
            udp = int.from_bytes(frame[36:38], "big") if frame[23] == 17 else 0
            inner = socket.inet_ntoa(frame[14 + 20 + 8 + 8 + 14 + 12 :][:4]) if udp == 8472 else ""
            seen.append([source, target, udp, inner, int.from_bytes(frame[20:22], "big") & 0x3FFF, len(frame)])
print(json.dumps(seen))
"""
IPV6 = """
apiVersion: netlab/v1
kind: Topology
cluster: {podCIDR: "fd00:10:244::/56", serviceCIDR: "fd00:10:96::/112", routing: vxlan}
nodes: 2
"""


def two_pods(nodes: tuple[str, str]) -> list[dict[str, object]]:
    """`near` and `far`, each on its node; `far` takes uploads."""
    made: list[dict[str, object]] = []
    for name, node, command in (("near", nodes[0], ["sleep", "1000"]), ("far", nodes[1], ["python3", "-c", SERVER])):
        container = {"name": "main", "image": "python", "command": command}
        probe = {"tcpSocket": {"port": 9000}, "periodSeconds": 1}
        spec = {"nodeName": node, "containers": [container | ({"readinessProbe": probe} if name == "far" else {})]}
        made.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    return made


@pytest.fixture(scope="module", params=["IPv4", "IPv6"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, str, int]]:
    """A lab, the address of its pod `far`, and the MTU of its pods."""
    if request.param == "IPv4":
        with netlab.up("topologies/vxlan.yaml") as found:
            found.apply(two_pods(("node-a", "node-c")))
            yield found, found.get("pods", "far")[0]["status"]["podIP"], 1450
    else:
        path = tmp_path_factory.mktemp("topology") / "v6.yaml"
        path.write_text(IPV6)
        with netlab.up(path) as found:
            found.apply(two_pods(("node-1", "node-2")))
            yield found, found.get("pods", "far")[0]["status"]["podIP"], 1430


def run(lab: Lab, where: str, program: str, *arguments: str) -> str:
    return lab.exec(where, ["python3", "-c", program, *arguments], check=True).stdout.strip()


def test_exactly_the_mtu_passes_and_one_more_is_refused(lab: tuple[Lab, str, int]) -> None:
    found, far, mtu = lab
    most = mtu - (48 if ":" in far else 28)
    assert run(found, "pod/near", PING, far, str(most)) == str(most)
    assert run(found, "pod/near", PING, far, str(most + 1)) == "Message too long"


def test_large_transfers_arrive_whole(lab: tuple[Lab, str, int]) -> None:
    found, far, _ = lab
    assert run(found, "pod/near", UPLOAD, far) == "True 20971520"


def test_the_lan_sees_nothing_but_carriers(lab: tuple[Lab, str, int]) -> None:
    """And none of them in fragments: what is as large as the MTU allows fills a frame, no more."""
    found, far, mtu = lab
    if ":" in far:
        pytest.skip("the frames are read as IPv4")
    seen: list[list[object]] = []
    sniffer = threading.Thread(target=lambda: seen.extend(json.loads(run(found, "node/node-c", SNIFF, "2"))))
    sniffer.start()
    while sniffer.is_alive():
        run(found, "pod/near", PING, far, str(mtu - 28))
    carriers = [one for one in seen if one[2] == 8472]
    assert len(carriers) > 4
    assert {(one[0], one[1]) for one in carriers} == {("192.168.50.10", "192.168.51.12"), ("192.168.51.12", "192.168.50.10")}
    assert any(str(one[3]).startswith("10.244.0.") for one in carriers), "the pod's own address is inside"
    assert {one[4] for one in carriers} == {0} and max(int(str(one[5])) for one in carriers) == 14 + 1500
    assert not [one for one in seen if str(one[0]).startswith("10.244.") or str(one[1]).startswith("10.244.")]


def test_what_is_taken_away_by_hand_is_noticed_and_made_again(lab: tuple[Lab, str, int]) -> None:
    found, far, _ = lab
    near = "node-1" if ":" in far else "node-a"
    assert found.verify().drift == []
    entry = found.exec(f"node/{near}", ["bridge", "fdb", "show", "dev", "flannel.1"]).stdout.split()[0]
    found.exec(f"node/{near}", ["bridge", "fdb", "del", entry, "dev", "flannel.1"], check=True)
    assert [line for line in found.verify().drift if "forwarding entry" in line and "is missing" in line]
    assert found.verify(repair=True).repaired == 1
    found.exec(f"node/{near}", ["ip", "link", "del", "flannel.1"], check=True)
    assert found.probe("pod/near", f"[{far}]:9000" if ":" in far else f"{far}:9000").outcomes["delivered"] == 0
    found.verify(repair=True)
    assert found.verify().drift == []
    assert found.probe("pod/near", f"[{far}]:9000" if ":" in far else f"{far}:9000").outcomes["delivered"] == 1


def test_a_node_that_is_cut_off_is_lost_for_pods_elsewhere(lab: tuple[Lab, str, int]) -> None:
    found, far, _ = lab
    end = "node-2" if ":" in far else "node-c"
    target = f"[{far}]:9000" if ":" in far else f"{far}:9000"
    found.fault("link-down", f"node/{end}")
    try:
        result = found.probe("pod/near", target)
        assert (result.outcomes["dropped"], result.verdict) == (1, "pass"), result.why
    finally:
        found.fault("link-up", f"node/{end}")
    assert found.probe("pod/near", target).outcomes["delivered"] == 1
