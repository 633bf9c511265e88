"""Loads, live: nothing is lost where nothing happens, and what a change, a dead generator or a stalled one costs is seen."""

import time
from collections.abc import Callable, Iterator
from typing import Literal

import pytest

import netlab
from netlab.client import Lab, LoadResult
from netlab.errors import InputError, NetlabError

KUBIA = "manifests/kubia.yaml"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with netlab.up(manifests=[KUBIA], proxy="nftables") as made:
        yield made


def paced(load: Callable[[], LoadResult], most_late_ms: float = 250.0) -> LoadResult:
    """The first of a few loads whose generator kept its pace: where the machine is too busy for that, a load proves nothing."""
    for _ in range(20):
        result = load()
        if result.verdict != "inconclusive" and result.rate["stall_ms"] <= most_late_ms:
            return result
    raise AssertionError(f"no generator kept its pace: {result.why}, {result.rate}")


@pytest.mark.parametrize("protocol", ["http", "tcp"])
@pytest.mark.parametrize("sender", ["pod/client", "host/client", "node/node-170"])
def test_nothing_is_lost_where_nothing_happens(lab: Lab, sender: str, protocol: Literal["http", "tcp"]) -> None:
    result = paced(lambda: lab.load(sender, "svc/kubia", 100, for_s=1.0, protocol=protocol, timeout_s=10).result(stop=False))
    assert (result.verdict, result.lost, result.outages) == ("pass", 0, []), result.why
    assert result.sent == result.answered == 100
    assert result.backends.keys() == lab.endpoints("svc/kubia")


def test_udp_and_a_name_server(lab: Lab) -> None:
    result = paced(
        lambda: lab.load("pod/client", "10.96.0.10:53", 50, for_s=0.5, protocol="udp", timeout_s=10).result(stop=False)
    )
    assert (result.verdict, result.answered) == ("pass", 25), result.why


def test_silence_and_refusal_are_told_apart(lab: Lab) -> None:
    silent = paced(lambda: lab.load("host/client", "10.96.77.77:80", 50, for_s=0.5, timeout_s=0.3).result(stop=False))
    assert (silent.timed_out, silent.refused, silent.verdict) == (25, 0, "pass"), silent.why
    refused = paced(lambda: lab.load("pod/client", "node/node-170:81", 50, for_s=0.5, timeout_s=10).result(stop=False))
    assert (refused.timed_out, refused.refused, refused.verdict) == (0, 25, "pass"), refused.why
    wrong = "http://kubia.default/echo?code=500&msg=no"
    missing = paced(lambda: lab.load("pod/client", wrong, 50, for_s=0.5, timeout_s=10).result(stop=False))
    assert (missing.wrong_status, missing.answered, missing.verdict) == (25, 0, "fail"), missing.why


def test_a_kept_connection_stays_with_one_backend(lab: Lab) -> None:
    # 300 ms apart: two at once, of which the second opens another connection, would take a stall as long as that
    def load() -> LoadResult:
        return lab.load("pod/client", "svc/kubia", 3, for_s=2.0, protocol="http", keep_alive=True, timeout_s=10).result(
            stop=False
        )

    for _ in range(20):
        kept = paced(load)
        if kept.latency_ms["max"] < 300:
            break
    assert (kept.verdict, len(kept.backends)) == ("pass", 1), kept.why


@pytest.mark.parametrize("mode", ["iptables", "nftables", "userspace"])
def test_an_outage_is_as_long_as_it_was(mode: str) -> None:
    with netlab.up(manifests=[KUBIA], proxy=mode) as lab:
        with lab.load("pod/client", "svc/kubia", 200, protocol="http", expect={"lost": 0}) as load:
            time.sleep(0.3)
            begun = time.monotonic()
            lab.scale("rc", "kubia", 0)
            time.sleep(0.3)
            lab.scale("rc", "kubia", 3)
            between_ms = (time.monotonic() - begun) * 1e3
            time.sleep(0.3)
        result = load.result()
        assert result.verdict == "fail"
        assert result.lost == result.sent - result.answered > 0
        # known but for the pause between two requests, and for what the generator itself was late or waited for an answer
        blur_ms = 50 + 2 * result.rate["stall_ms"] + result.latency_ms["max"]
        assert 300 - blur_ms <= result.outage_ms <= between_ms + blur_ms, (result.outages, between_ms, result.rate)
        again = paced(
            lambda: lab.load("pod/client", "svc/kubia", 200, for_s=0.5, protocol="http", timeout_s=10).result(stop=False)
        )
        assert again.verdict == "pass", again.why


def test_scaling_up_and_down_loses_nothing_and_shows_new_backends(lab: Lab) -> None:
    with lab.load("host/client", "192.168.0.170:30123", 100, protocol="http", timeout_s=10) as load:
        lab.scale("rc", "kubia", 5)
        five = lab.endpoints("svc/kubia")
        after = lab.load("host/client", "192.168.0.170:30123", 100, for_s=1.0, protocol="http", timeout_s=10).result(stop=False)
    assert load.result().lost == after.lost == 0, load.result().why
    assert load.result().backends.keys() == after.backends.keys() == five
    lab.scale("rc", "kubia", 3)


def test_a_stalled_generator_is_no_outage_and_no_pass(lab: Lab) -> None:
    load = lab.load("pod/client", "svc/kubia", 200, protocol="http", expect={"outage_ms": 200})
    pid = next(pid for name, pid in lab.verb("processes")["agents"].items() if name.startswith("load-"))
    time.sleep(0.2)
    lab.exec("node/node-169", ["kill", "-STOP", str(pid)], check=True)
    time.sleep(1.5)  # longer than a request's deadline, and than what the generator may be late
    lab.exec("node/node-169", ["kill", "-CONT", str(pid)], check=True)
    time.sleep(0.2)
    result = load.result()
    # Some 300 were due meanwhile, and none of them counts; what was open when it was stopped the pod may have closed.
    assert result.lost < 10, result.why
    assert result.verdict == "inconclusive"
    assert "fell behind its rate" in result.why[0]


def test_a_killed_generator_is_an_error_and_the_lab_lives(lab: Lab) -> None:
    load = lab.load("pod/client", "svc/kubia", 10)
    pid = next(pid for name, pid in lab.verb("processes")["agents"].items() if name.startswith("load-"))
    lab.exec("node/node-169", ["kill", "-KILL", str(pid)], check=True)
    with pytest.raises(NetlabError, match=r"died|gone"):
        load.result()
    assert lab.probe("pod/client", "svc/kubia").verdict == "pass"


def test_several_loads_run_side_by_side_and_none_is_left(lab: Lab) -> None:
    loads = [
        lab.load(sender, "svc/kubia", 50, protocol="http", timeout_s=10)
        for sender in ("pod/client", "host/client", "node/node-171")
    ]
    time.sleep(0.5)
    assert [load.result().lost for load in loads] == [0, 0, 0]
    assert not [name for name in lab.verb("processes")["agents"] if name.startswith("load-")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"rate": 0}, "rate 0: send more than 0"),
        ({"rate": 1e6}, "at most 5000"),
        ({"rate": 1, "protocol": "icmp"}, "no load of protocol 'icmp'"),
        ({"rate": 1, "for_s": 1e9}, "at most 3600 seconds"),
    ],
)
def test_what_cannot_be_sent_is_refused(lab: Lab, arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        lab.load("pod/client", "svc/kubia", **arguments)  # type: ignore[arg-type]  # wrong on purpose
