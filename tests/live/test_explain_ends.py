"""Explanations where rules are flat maps, where a proxy process takes the packet, and of packets that no rule ends."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import InputError, MachineError, MissingEvidence

MANIFESTS = ["manifests/kubia.yaml", "manifests/no-endpoints.yaml"]


@contextlib.contextmanager
def running(topology: str = "topologies/two-node.yaml", proxy: str | None = "nftables") -> Iterator[Lab]:
    try:
        with netlab.up(topology, MANIFESTS, proxy=proxy) as lab:
            yield lab
    except MachineError as error:
        pytest.skip(f"this machine cannot run a lab: {error}")


def agreed(found: dict[str, Any], outcome: str) -> None:
    assert (found["verdict"], found["outcome"], found["disagreements"]) == ("pass", outcome, []), found["why"]


def decisive(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in found["hops"] if one["event"] == "rule" and one["decisive"]]


@pytest.mark.parametrize(("sender", "to"), [("pod/client", "svc/kubia"), ("host/client", "192.168.0.170:30123")])
def test_a_rule_of_flat_maps_is_there_for_the_service_that_was_asked(sender: str, to: str) -> None:
    with running("topologies/flat-maps.yaml", None) as lab:
        found = lab.explain(sender, to)
        agreed(found, "delivered")
        assert found["choice"]["backends"] == 3 and found["choice"]["odds"] == "1/3"
        assert found["choice"]["owner"] == "svc/default/kubia"
        (rule,) = [one for one in decisive(found) if one["did"] == "destination becomes one of 3, at random"]
        assert rule["owner"] == "svc/default/kubia" and "numgen random mod 3" in rule["rule"]
        plain = lab.explain("pod/client", f"pod/{found['choice']['chosen'].rpartition('/')[2]}:8080")
        agreed(plain, "delivered")
        assert plain["choice"] is None and not decisive(plain)


def test_in_userspace_the_story_goes_on_through_the_proxy_process() -> None:
    with running(proxy="userspace") as lab:
        first, second = lab.explain("pod/client", "svc/kubia"), lab.explain("pod/client", "svc/kubia")
        for found in (first, second):
            agreed(found, "delivered")
            assert found["hops"][-1]["event"] == "relayed" and found["hops"][-1]["owner"] == "svc/default/kubia"
            assert found["arrived_at"].startswith("pod/default/kubia-") and found["arrived_at"] in found["hops"][-1]["text"]
            assert (found["choice"]["how"], found["choice"]["odds"]) == ("in turn", "1/3")
        assert first["arrived_at"] != second["arrived_at"], "endpoints take turns"
        nobody = lab.explain("host/client", "192.168.0.170:30009")
        agreed(nobody, "rejected")
        assert "has no endpoints" in nobody["remedies"][0] and nobody["arrived_at"] is None
        agreed(lab.explain("node/node-170", "svc/kubia"), "delivered")
        agreed(lab.explain("pod/client", "10.96.0.10:53", protocol="udp"), "delivered")
        plain = lab.explain("pod/client", f"{lab.get('pods', first['arrived_at'].rpartition('/')[2])[0]['status']['podIP']}:8080")
        assert plain["hops"][-1]["event"] == "delivered" and "relayed" not in plain


def test_packets_that_no_rule_ends_say_where_and_why() -> None:
    with running() as lab:
        found = lab.explain("pod/client", "192.168.0.250:80")
        agreed(found, "dropped")
        assert "found nobody who has 192.168.0.250" in found["why"][0]
        neighbour = [line for line in found["hops"][-1]["evidence"] if "neighbour table" in line]
        assert neighbour and any(word in neighbour[0] for word in ("INCOMPLETE", "FAILED"))

        lab.exec("node/node-170", ["ip", "route", "replace", "blackhole", "10.244.1.0/24"], check=True)
        target = next(pod for pod in lab.get("pods") if pod["spec"]["nodeName"] == "node-171")
        found = lab.explain("pod/client", f"pod/{target['metadata']['name']}:8080")
        assert (found["verdict"], found["outcome"]) == ("fail", "dropped")
        assert "blackhole 10.244.1.0/24" in found["why"][0] and "netlab verify --repair" in found["remedies"][-1]
        lab.verify(repair=True)
        agreed(lab.explain("pod/client", f"pod/{target['metadata']['name']}:8080"), "delivered")

        lab.exec("pod/client", ["ip", "route", "del", "default"], check=True)
        found = lab.explain("pod/client", "svc/kubia")
        assert (found["verdict"], found["outcome"]) == ("fail", "rejected")
        assert "Network is unreachable" in found["why"][0] and "netlab verify --repair" in found["remedies"][-1]
        lab.verify(repair=True)

        lab.fault("link-down", "node/node-171")
        found = lab.explain("pod/client", f"pod/{target['metadata']['name']}:8080")
        assert found["outcome"] == "dropped" and "netlab fault link-up" in found["remedies"][0]


def ruleset(lab: Lab, node: str, family: str, hook: str, rule: str, *devices: str) -> None:
    """A table of somebody else's, as a CNI or a firewall would make it."""
    device = f" device {devices[0]}" if devices else ""
    base = f"type filter hook {hook}{device} priority -10; policy accept;"
    text = f"table {family} cni {{\n chain c {{\n {base}\n {rule}\n }}\n}}\n"
    lab.exec(node, ["nft", "-f", "-"], stdin=text, check=True)


FOREIGN = (
    ("inet", "forward", "tcp dport 8080 counter drop", "dropped", "at hook forward by rule 1 of c (table inet cni)"),
    ("ip", "forward", "tcp dport 8080 reject with tcp reset", "rejected", "at hook forward by rule 1 of c (table cni)"),
    (
        "inet",
        "prerouting",
        "tcp sport 8080 drop",
        "dropped",
        "its answer did not get back: dropped in node/node-171 at hook prerouting",
    ),
    (
        "netdev",
        "ingress",
        "tcp dport 8080 drop",
        "dropped",
        "rules ahead of the IP stack, where nothing is traced: netdev cni",
    ),
)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_rules_of_others_are_named_wherever_they_stand(mode: str) -> None:
    with running(proxy=mode) as lab:
        target = next(pod["metadata"]["name"] for pod in lab.get("pods") if pod["spec"]["nodeName"] == "node-171")
        for family, hook, rule, outcome, words in FOREIGN:
            ruleset(lab, "node/node-171", family, hook, rule, *(["eth0"] if hook == "ingress" else []))
            found = lab.explain("pod/client", f"pod/{target}:8080")
            assert (found["verdict"], found["outcome"]) == ("fail", outcome) and words in found["why"][0], (
                family,
                hook,
                found["why"],
            )
            end = next(one for one in (*found["hops"], *found["reply"]) if one["event"] in ("dropped", "rejected"))
            if hook != "ingress":
                assert rule in str(end["rule"]) and end["planned"] is False and "is not netlab's" in found["remedies"][0]
            lab.exec("node/node-171", ["nft", "delete", "table", family, "cni"], check=True)
        agreed(lab.explain("pod/client", f"pod/{target}:8080"), "delivered")


def test_what_carries_a_packet_between_nodes_is_told() -> None:
    with running("topologies/vxlan.yaml") as lab:
        target = next(pod["metadata"]["name"] for pod in lab.get("pods") if pod["spec"]["nodeName"] == "node-c")
        found = lab.explain("pod/client", f"pod/{target}:8080")
        agreed(found, "delivered")
        way = list(dict.fromkeys(one["netns"] for one in found["carried"] if one["part"] == "request"))
        assert way == ["node/node-a", "lan/lan-a", "router/router", "lan/lan-b", "node/node-c"]
        assert {one["packet"]["dst"] for one in found["carried"]} == {"192.168.51.12", "192.168.50.10"}
        assert not any(one["packet"]["dport"] == 8472 for one in found["hops"]), "the way is the packet's own"

        ruleset(lab, "node/node-c", "inet", "input", "udp dport 8472 drop")
        found = lab.explain("pod/client", f"pod/{target}:8080")
        assert (found["verdict"], found["outcome"]) == ("fail", "dropped")
        assert "carried on in UDP from 192.168.50.10 to 192.168.51.12:8472, last seen in node/node-c on eth0" in found["why"][0]
        assert "dropped in node/node-c at hook input by rule 1 of c (table inet cni)" in found["why"][0]
        assert found["hops"][-1]["rule"] == "udp dport 8472 drop" and "is not netlab's" in found["remedies"][0]


def test_what_the_kernel_drops_without_a_word() -> None:
    with running() as lab:
        node = "node/node-171"
        target = next(pod["metadata"]["name"] for pod in lab.get("pods") if pod["spec"]["nodeName"] == "node-171")

        def why(*commands: str) -> str:
            for command in commands:
                lab.exec(node, command.split(), check=True)
            found = lab.explain("pod/client", f"pod/{target}:8080")
            assert (found["verdict"], found["outcome"]) == ("fail", "dropped")
            lab.verify(repair=True)
            return str(found["why"][0])

        away = "ip route replace 10.244.0.0/24 via 192.168.0.1"
        filtered = why("sysctl -qw net.ipv4.conf.eth0.rp_filter=1", f"{away} dev cni0 onlink")
        assert "eth0.rp_filter is 1, and the route back to 10.244.0.2 is `10.244.0.0/24 via 192.168.0.1 dev cni0`" in filtered
        assert "does not forward packets: net.ipv4.ip_forward is 0" in why("sysctl -qw net.ipv4.ip_forward=0")
        lost = why(f"{away} dev eth0")
        assert "its answer did not get back: dropped in router/router: its route for 10.244.0.2 is `blackhole default`" in lost
        agreed(lab.explain("pod/client", f"pod/{target}:8080"), "delivered")


def test_an_answer_from_another_address_is_no_answer() -> None:
    with running() as lab:
        lab.exec("node/node-170", ["nft", "flush", "chain", "ip", "kube-proxy", "masquerading"], check=True)
        for _ in range(60):  # until an endpoint of the other node is chosen
            found = lab.explain("host/client", "192.168.0.170:30123")
            if found["nat"] and found["nat"]["after"]["dst"].startswith("10.244.1."):
                break
        assert (found["verdict"], found["outcome"]) == ("fail", "dropped")
        assert "and not from 192.168.0.170:30123: the sender knows of no such connection" in found["why"][0]
        assert "masquerade there" in found["remedies"][0]


SIX = (
    ("pod/client", "svc/six", "tcp", "delivered", "dnat"),
    ("host/client", "svc/six", "tcp", "delivered", "dnat snat"),
    ("node/node-a", "svc/six", "tcp", "delivered", "dnat snat"),
    ("host/client", "[fd00:192:168::10]:30080", "tcp", "delivered", "dnat snat"),
    ("pod/client", "[fd00:192:168::11]:30053", "udp", "delivered", "dnat snat"),
    ("pod/client", "svc/empty", "tcp", "rejected", ""),
    ("pod/client", "[fd00:192:168::99]:80", "tcp", "dropped", ""),
    ("pod/client", "pod/web", "icmp", "delivered", ""),
    ("pod/client", "pod/web", "nothing", "rejected", ""),
)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_ipv6_is_told_as_well(mode: str) -> None:
    try:
        lab = netlab.up("topologies/dual-stack.yaml", ["manifests/dual-stack.yaml"], proxy=mode)
    except MachineError as error:
        pytest.skip(f"this machine cannot run a lab: {error}")
    with lab:
        web = next(pod for pod in lab.get("pods") if pod["spec"]["nodeName"] == "node-b" and pod["metadata"]["name"] != "client")
        address = next(one["ip"] for one in web["status"]["podIPs"] if ":" in one["ip"])
        for sender, to, protocol, outcome, kinds in SIX:
            to = to if to != "pod/web" else f"[{address}]:9" if protocol == "nothing" else address
            found = lab.explain(sender, to, protocol=None if protocol == "nothing" else protocol)
            agreed(found, outcome)
            assert ":" in found["packet"]["dst"] and found["traced"], found["packet"]
            assert " ".join((found["nat"] or {"kinds": ()})["kinds"]) == kinds, (sender, to)
            if kinds:
                assert found["choice"]["odds"] == "1/2" and any(one["owner"] for one in decisive(found)), (sender, to)
            if outcome != "delivered":
                assert found["why"], (sender, to)


def while_calling(lab: Lab, target: str, command: list[str], sender: str, to: str, **options: Any) -> dict[str, Any]:
    """Explain a real connection: the command is run again and again until one was caught."""
    found: list[dict[str, Any]] = []
    watcher = threading.Thread(target=lambda: found.append(lab.explain(sender, to, live_s=20, **options)))
    watcher.start()
    while watcher.is_alive():
        lab.exec(target, command)
    watcher.join()
    return found[0]


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_real_programs_connection_is_followed(mode: str) -> None:
    with running(proxy=mode) as lab:
        curl = ["curl", "-s", "-m", "2", "--interface", "eth0", "http://10.96.1.1"]
        other = threading.Event()

        def somebody_else() -> None:
            while not other.is_set():
                lab.exec("host/client", ["curl", "-s", "-m", "2", "http://10.96.1.1"])

        noise = threading.Thread(target=somebody_else)
        noise.start()
        try:
            found = while_calling(lab, "pod/client", curl, "pod/client", "svc/kubia")
        finally:
            other.set()
            noise.join()
        agreed(found, "delivered")
        assert found["hops"][0]["netns"] == "pod/default/client" and found["nat"]["kinds"] == ["dnat"]
        assert {one["netns"].partition("/")[0] for one in found["hops"]} <= {"pod", "node", "lan"}, "nobody else's packets"
        assert "ASSURED" in str(found["conntrack"]["node/node-170"]), "a whole connection, not a lone packet"

        found = while_calling(lab, "node/node-170", ["curl", "-s", "-m", "2", "http://10.96.1.1"], "node/node-170", "svc/kubia")
        agreed(found, "delivered")
        assert "dnat" in found["nat"]["kinds"] and found["packet"]["dst"] == "10.96.1.1", "before its own node's rules"

        found = while_calling(lab, "pod/client", ["curl", "-s", "-m", "2", "http://10.96.1.2"], "pod/client", "svc/nobody")
        agreed(found, "rejected")
        assert "has no endpoints" in found["remedies"][0]


ASKING = """
import socket, struct, sys, time
def summed(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
what, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
echo = what == "ping"
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW if echo else socket.SOCK_DGRAM, socket.IPPROTO_ICMP if echo else 0)
sock.connect((address, port))
sock.settimeout(0.05)
number = 0
while True:
    number += 1
    data = b"hostname" if what == "hostname" else b"%08d" % number
    if echo:
        data = struct.pack("!BBHHH", 8, 0, 0, 77, number % 65536) + data
        data = data[:2] + struct.pack("!H", summed(data)) + data[4:]
    try:
        sock.send(data)
        sock.recv(2048)
    except OSError:
        pass
    time.sleep(0.02)
"""
"""Asks again and again through one socket: its first packet meets the rules, every later one conntrack's memory."""


@contextlib.contextmanager
def asking(lab: Lab, target: str, *arguments: str) -> Iterator[None]:
    program = subprocess.Popen(
        [sys.executable, "-m", "netlab", "--lab", lab.name, "exec", target, "--", sys.executable, "-c", ASKING, *arguments]
    )
    try:
        yield
    finally:
        program.terminate()
        program.wait()


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_real_programs_datagrams_are_followed(mode: str) -> None:
    with running(proxy=mode) as lab:
        dig = ["dig", "+tries=1", "+timeout=2", "@10.96.0.10", "kubia.default.svc.cluster.local"]
        for sender in ("pod/client", "node/node-170"):
            found = while_calling(lab, sender, dig, sender, "10.96.0.10:53", protocol="udp")
            agreed(found, "delivered")
            assert found["choice"]["odds"] == "1/2" and "dnat" in found["nat"]["kinds"], "a new flow meets the rules"
            assert found["reply"][-1]["event"] == "delivered" and found["packet"]["sport"] > 0

        with asking(lab, "pod/client", "silent", "10.96.0.10", "53"):  # what the DNS server does not answer
            lab.explain("pod/client", "10.96.0.10:53", protocol="udp", live_s=20)
            found = lab.explain("pod/client", "10.96.0.10:53", protocol="udp", live_s=20)
        agreed(found, "delivered")
        assert any("conntrack, which remembers the flow, rewrites" in one["text"] for one in found["hops"]) and not decisive(
            found
        )
        assert found["choice"] is None and any("no answer was seen" in note for note in found["notes"])

        with asking(lab, "pod/client", "refused", "10.96.1.1", "99"):
            lab.exec("node/node-170", ["ip", "route", "add", "unreachable", "10.96.1.1"], check=True)
            found = lab.explain("pod/client", "10.96.1.1:99", protocol="udp", live_s=20)
        assert found["outcome"] == "rejected" and found["reply"], "the ICMP error quotes the datagram"

        with asking(lab, "pod/client", "ping", "192.168.0.171", "0"):
            found = lab.explain("pod/client", "192.168.0.171", live_s=20)
        agreed(found, "delivered")
        assert found["reply"][-1]["netns"] == "pod/default/client"


def test_live_says_what_it_cannot_follow() -> None:
    with running() as lab:
        for protocol, words in (("tcp", "TCP connection"), ("udp", "UDP datagram")):
            with pytest.raises(MissingEvidence, match=f"no {words} .* was seen within"):
                lab.explain("pod/client", "10.96.0.10:53", protocol=protocol, live_s=0.2)
        with pytest.raises(InputError, match="a TCP connection, a UDP datagram or a ping can be waited for, not SCTP"):
            lab.explain("pod/client", "10.96.0.10:53", protocol="sctp", live_s=0.2)
        waiting = ["explain", "pod/client", "svc/kubia", "--live", "--wait", "0.2"]
        seen = subprocess.run([sys.executable, "-m", "netlab", "--lab", lab.name, *waiting], capture_output=True, text=True)
        assert (seen.returncode, seen.stdout) == (4, "") and seen.stderr.startswith(
            "waiting up to 0.2 s for a TCP connection from pod/"
        )
        wrong = subprocess.run(
            [sys.executable, "-m", "netlab", "--lab", lab.name, *waiting, "--protocol", "udp"], capture_output=True, text=True
        )
        assert wrong.returncode == 2 and "waiting" not in wrong.stderr and "has no UDP port" in wrong.stderr


def test_a_source_that_is_not_the_senders_own() -> None:
    with running() as lab:
        found = lab.explain("pod/client", "svc/kubia", source="1.2.3.4")
        agreed(found, "delivered")
        assert "nobody's in this lab" in found["notes"][0]
        agreed(lab.explain("pod/client", "svc/nobody", source="1.2.3.4"), "rejected")
        assert "the answer goes to host/client" in lab.explain("pod/client", "svc/kubia", source="192.168.0.100")["notes"][0]
        remote = next(pod for pod in lab.get("pods") if pod["spec"]["nodeName"] == "node-171")["status"]["podIP"]
        lab.exec("node/node-171", ["ip", "route", "replace", "blackhole", f"{remote}/32"], check=True)
        found = lab.explain("pod/client", f"{remote}:8080", source="1.2.3.4")
        assert (found["outcome"], found["verdict"]) == ("dropped", "fail"), "nobody answered: not delivered"
