"""What a prober keeps open between probes: it is used again, it is never used for another namespace, and it is given up."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

import netlab
from netlab.agents import worker
from netlab.errors import MachineError
from netlab.kernel import agent, packet_sockets
from netlab.kernel.namespaces import entered
from netlab.model import Protocol
from netlab.probes import filters, packets
from netlab.probes.plain import number_of
from netlab.probes.prober import Prober
from netlab.probes.spaces import MOST_DESCRIPTORS, Spaces
from tests.live.probe_sandbox import Net, sandboxed
from tests.live.test_probes_live import WATCHED, A, network, request
from tests.waiting import until


def keeping(net: Net, names: dict[str, str] | None = None) -> Prober:
    """A prober that keeps; `names`: a name -> the name of the namespace that it means now."""
    meant = names if names is not None else {}
    return Prober(
        lambda name: net.open(meant.get(name, name)), Random(1), identify=lambda name: os.fstat(net.fds[meant.get(name, name)])
    )


def open_sockets(pid: str = "self") -> set[str]:
    """What tells the sockets that a process has open."""
    found = (_link(path) for path in Path(f"/proc/{pid}/fd").iterdir())
    return {link for link in found if link.startswith("socket:")}


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:  # it was the directory's own descriptor
        return ""


@sandboxed
def test_the_second_probe_uses_the_sockets_of_the_first() -> None:
    with network() as (net, plain):
        prober = keeping(net)
        before = open_sockets()
        plain.probe(request())
        assert open_sockets() == before, "nothing stays open where a prober does not keep"
        first = prober.probe(request(count=10))
        kept = open_sockets()
        assert len(kept - before) > len(WATCHED), "eyes and injectors"
        second = prober.probe(request(count=10))
        assert open_sockets() == kept
        for seen in (first, second):
            assert (seen.delivered, seen.blind, seen.backends) == (10, (), {"pod/default/a": 5, "pod/default/b": 5})
        prober.spaces.close()
        assert open_sockets() == before


@sandboxed
def test_protocols_take_turns() -> None:
    with network() as (net, plain):
        prober = keeping(net)
        for _ in range(2):
            for protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP):
                seen, wanted = (one.probe(request(protocol=protocol, count=4)) for one in (prober, plain))
                assert (seen.delivered, seen.rejected, seen.dropped) == (wanted.delivered, wanted.rejected, wanted.dropped)
                assert seen.blind == wanted.blind == ()
            seen = prober.probe(request(A, 0, Protocol.ICMP))
            assert (seen.delivered, seen.blind) == (1, ())


@sandboxed
def test_a_packet_that_goes_astray_is_seen_by_kept_eyes() -> None:
    """Between two probes the rules send everything to another place, one where nobody expects it."""
    with network() as (net, _):
        prober = keeping(net)
        assert prober.probe(request(A, 8080)).backends == {"pod/default/a": 1}
        astray = "table ip x { chain c { type nat hook prerouting priority -110; ip daddr 10.0.1.2 dnat to 10.0.2.2\n}\n}\n"
        net.run("router", "nft", "-f", "-", text=astray)
        seen = prober.probe(request(A, 8080))
        assert (seen.backends, seen.blind) == ({"pod/default/b": 1}, ())


@sandboxed
def test_a_name_that_means_another_namespace_gets_other_sockets() -> None:
    with network() as (net, _):
        names: dict[str, str] = {}
        prober = keeping(net, names)
        assert prober.probe(request(count=4)).blind == ()
        names["a"] = "router"
        seen = prober.probe(request(count=4))
        assert seen.delivered == 4 and seen.backends == {"pod/default/b": 2}
        assert "2 answered flows were seen to arrive at no watched namespace" in seen.blind
        del names["a"]
        assert prober.probe(request(count=4)).backends == {"pod/default/a": 2, "pod/default/b": 2}


@sandboxed
def test_a_namespace_that_is_gone_is_said_to_be() -> None:
    with network() as (net, _):
        gone: set[str] = set()

        def there(name: str) -> str:
            if name in gone:
                raise FileNotFoundError(2, "No such file or directory")
            return name

        prober = Prober(lambda name: net.open(there(name)), Random(1), identify=lambda name: os.fstat(net.fds[there(name)]))
        assert prober.probe(request()).blind == ()
        gone.add("b")
        assert any(text.startswith("pod/default/b: cannot be entered") for text in prober.probe(request(A, 8080)).blind)


@sandboxed
def test_a_kept_watcher_that_cannot_prove_itself_is_blind() -> None:
    with network() as (net, _):
        prober = keeping(net)
        assert prober.probe(request()).blind == ()
        net.run("b", "ip", "link", "set", "lo", "down")
        assert "pod/default/b: the watcher did not see its own test packet" in prober.probe(request(A, 8080)).blind


@sandboxed
def test_what_the_lab_has_no_more_is_given_up() -> None:
    with network() as (net, _):
        prober = keeping(net)
        prober.probe(request())
        many = open_sockets()
        fewer = tuple(one for one in WATCHED if one.netns != "b")
        prober.probe(replace(request(A, 8080), watched=fewer))
        assert len(open_sockets()) == len(many) - 2, "b's eye and injector are closed"


@sandboxed
def test_no_more_is_kept_than_may_be() -> None:
    with network() as (net, _):
        spaces = Spaces(net.open, lambda name: os.fstat(net.fds[name]))
        before = len(list(Path("/proc/self/fd").iterdir()))
        spaces._descriptors = MOST_DESCRIPTORS
        spaces.give_back(spaces.take("a"))
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@sandboxed
def test_the_filter_of_all_runs_knows_its_own() -> None:
    """Runs 0x42.. are taken, those of other probers are not, in every protocol and both versions.

    Loopback delivers in the sender's own system call: nothing has to be waited for.
    """
    net = Net()
    net.make("a")
    program = packet_sockets.program(filters.token_filter(0x4200, every_run=True))
    for version, home in packets.LOOPBACK.items():
        for protocol in (Protocol.TCP, Protocol.UDP, Protocol.ICMP):
            number = number_of(protocol, version)
            with entered(net.fds["a"]):
                eye, sock = packet_sockets.delivered(number, program, version), packet_sockets.injector(version)
            runs = (0x4200, 0x4317, 0x2442, 0x42FE)
            for run in runs:
                packet = packets.packet(run, protocol, home, home, 1, run & 0xFF, 1)
                sock.sendto(packet, (str(home), 0))
            found = [(run, seen.number) for data in eye.new() for run in runs if (seen := _request(data, run))]
            assert found == [(0x4200, 0x00), (0x42FE, 0xFE)], (version, protocol, found)


def _request(data: bytes, run: int) -> packets.Seen | None:
    seen = packets.seen(data, run)
    return seen if seen is not None and seen.kind is packets.Kind.REQUEST else None


def test_a_token_comes_again_after_256_rounds() -> None:
    """Sockets that stay open see late packets of the round before: they must not count for this one."""
    prober = Prober(lambda name: -1, own=0x42)
    tokens = [prober.token() for _ in range(256)]
    assert len(set(tokens)) == 256
    assert {token >> 8 for token in tokens} == {0x42}, "the filter that stays takes them all, and no other prober's"


@sandboxed
def test_two_who_probe_at_the_same_time_see_their_own() -> None:
    """Flows to the same Service, in rounds of the same numbers: what either sees is what it sent. With one range it is not."""
    with network() as (net, _):
        theirs, ours = (Prober(net.open, Random(own), own=own) for own in (0x41, 0x42))
        theirs._round = ours._round = 0
        asked = request(count=10, timeout_s=5.0)
        with ThreadPoolExecutor(2) as pool:
            for seen in pool.map(lambda one: [one.probe(asked) for _ in range(20)], (theirs, ours)):
                assert [(one.delivered, one.blind, sum(one.backends.values())) for one in seen] == [(10, (), 10)] * 20


@sandboxed
def test_a_worker_with_something_else_to_do_holds_no_namespace() -> None:
    """A command may take for ever; what the probe before it opened is closed when it begins."""
    with network() as (net, _):

        def path(name: str) -> str:
            return f"/proc/{os.getpid()}/fd/{net.fds[name]}"

        asked = request(count=4, timeout_s=5.0)
        asked = replace(asked, netns=path("client"), watched=tuple(replace(one, netns=path(one.netns)) for one in WATCHED))
        working = agent.spawn("worker", lambda sock: worker.serve(sock, 0x42))
        at_first = open_sockets(str(working.pid))
        for _ in range(2):
            assert working.call("probe", asked, deadline_s=60).delivered == 4
            assert len(open_sockets(str(working.pid)) - at_first) > len(WATCHED), "for the next probe"
            assert working.call("flush_conntrack", (), deadline_s=60) == {"flushed": 0}
            assert len(open_sockets(str(working.pid))) <= 2, "its wire, and what switches the stamps on"
        working.sock.close()
        os.waitpid(working.pid, 0)


def test_a_lab_at_rest_holds_nothing_open() -> None:
    """The worker closes by itself what it kept; the next probe works all the same. A pod deleted meanwhile is gone for good."""
    try:
        lab_ = netlab.up("topologies/two-node.yaml", ["manifests/kubia.yaml"])
    except MachineError as error:
        pytest.skip(f"this machine cannot run a lab: {error}")
    with lab_ as lab:
        children = Path(f"/proc/{lab.pid}/task/{lab.pid}/children")
        before = set(children.read_text().split())
        assert lab.probe("pod/client", "svc/kubia").verdict == "pass"
        lab.connect("pod/client", "svc/kubia").close()
        workers = set(children.read_text().split()) - before
        until(lambda: all(len(open_sockets(pid)) <= 2 for pid in workers), "a worker that has nothing to do keeps sockets open")
        found = lab.probe("pod/client", "svc/kubia")
        assert (found.verdict, found.sent) == ("pass", 1)
        victim = next(one["metadata"]["name"] for one in lab.get("pods") if one["metadata"]["name"].startswith("kubia-"))
        lab.delete("pod", victim)
        found = lab.probe("pod/client", "svc/kubia", count=30)
        assert found.verdict == "pass" and f"pod/default/{victim}" not in found.backends
        assert len(found.backends) == 3, "the pod in its place is watched, too"
