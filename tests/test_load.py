"""Loads, offline: what a record says - counts, outages, percentiles - and when it is a pass, a failure, or neither."""

import socket
import threading
import time
from array import array
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from netlab.agents.load import Generator
from netlab.cli.loading import load_text
from netlab.model import Judgement
from netlab.probes import load
from netlab.probes.load import Allowed, Fate, LoadRecord, LoadRequest, Outage

RATE = 100.0
LETTERS = {".": Fate.ANSWERED, "x": Fate.REFUSED, "t": Fate.TIMED_OUT, "r": Fate.RESET, "w": Fate.WRONG_STATUS, "u": Fate.UNSENT}


def record(fates: str, late_s: float = 0.0) -> LoadRecord:
    """One letter a request, 10 ms apart; every one that was answered took 2 ms."""
    count = len(fates)
    return LoadRecord(
        sent_s=array("d", [index / RATE for index in range(count)]),
        late_s=array("f", [late_s] * count),
        latency_s=array("f", [0.002] * count),
        fates=bytearray(LETTERS[letter] for letter in fates),
        seconds=count / RATE,
    )


@pytest.mark.parametrize(
    ("fates", "expected"),
    [
        ("....", ()),
        ("..xx..", (Outage(20.0, 20.0, 2),)),
        ("xx..", (Outage(0.0, 20.0, 2),)),
        ("..tr", (Outage(20.0, 20.0, 2),)),
        (".x.w.", (Outage(10.0, 10.0, 1), Outage(30.0, 10.0, 1))),
        ("xxxx", (Outage(0.0, 40.0, 4),)),
        (".xux.", (Outage(10.0, 30.0, 2),)),
        (".uu.", ()),
        ("", ()),
    ],
)
def test_an_outage_is_where_no_request_succeeded(fates: str, expected: tuple[Outage, ...]) -> None:
    assert load.outages(record(fates)) == expected


def test_what_is_counted() -> None:
    seen = load.seen(record("..xtrwu."), RATE)
    assert [seen[key] for key in ("sent", "answered", "lost", "refused", "timed_out", "reset", "wrong_status", "unsent")] == [
        7, 3, 4, 1, 1, 1, 1, 1,
    ]  # fmt: skip
    assert seen["latency_ms"] == {"p50": 2.0, "p90": 2.0, "p99": 2.0, "max": 2.0}
    assert seen["outage_ms"] == 50.0


@pytest.mark.parametrize(
    ("values", "expected"), [(range(1, 101), [50, 90, 99, 100]), ([7], [7, 7, 7, 7]), ([2, 1], [1, 2, 2, 2]), ([], [0, 0, 0, 0])]
)
def test_percentiles(values: Any, expected: list[float]) -> None:
    assert load.percentiles(list(values), (0.5, 0.9, 0.99, 1.0)) == expected


DELIVERED = ("delivered", "delivered")
ROWS: tuple[tuple[str, str, tuple[str, str], Allowed, Judgement, str], ...] = (
    ("nothing lost", "....", DELIVERED, Allowed(), Judgement.PASS, ""),
    ("one lost", "..x.", DELIVERED, Allowed(), Judgement.FAIL, "1 of 4 requests were lost (1 refused)"),
    ("one lost is allowed", "..x.", DELIVERED, Allowed(lost=1), Judgement.PASS, ""),
    ("two lost, one allowed", ".tx.", DELIVERED, Allowed(lost=1), Judgement.FAIL, "2 of 4 requests were lost"),
    ("a short outage is allowed", ".xx.", DELIVERED, Allowed(outage_ms=20), Judgement.PASS, ""),
    ("too long an outage", ".xxx.", DELIVERED, Allowed(outage_ms=20), Judgement.FAIL, "an outage of 30 ms, 20 ms allowed"),
    ("refused, as expected", "xxxx", ("rejected", "rejected"), Allowed(), Judgement.PASS, ""),
    ("answered, not refused", "xx.x", ("rejected", "rejected"), Allowed(), Judgement.FAIL, "3 of 4 requests were refused"),
    ("silence, as expected", "tttt", ("dropped", "dropped"), Allowed(), Judgement.PASS, ""),
    ("refused, not silence", "ttxt", ("dropped", "dropped"), Allowed(), Judgement.FAIL, "3 of 4 requests were timed out"),
    ("it changed meanwhile", "..xx", ("delivered", "rejected"), Allowed(), Judgement.INCONCLUSIVE, "say what may be lost"),
    ("it changed, as allowed", "..xx", ("delivered", "rejected"), Allowed(lost=2), Judgement.PASS, ""),
    ("nothing sent", "", DELIVERED, Allowed(), Judgement.INCONCLUSIVE, "nothing was sent"),
    ("could not be sent from here", "...u", DELIVERED, Allowed(), Judgement.INCONCLUSIVE, "could not be sent from here"),
)


@pytest.mark.parametrize(
    ("fates", "expected", "allowed", "judgement", "why"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS]
)
def test_verdicts(fates: str, expected: tuple[str, str], allowed: Allowed, judgement: Judgement, why: str) -> None:
    verdict, reasons = load.judged(load.seen(record(fates), RATE), expected, allowed)
    assert verdict is judgement, reasons
    assert why in " ".join(reasons)
    assert bool(reasons) == (judgement is not Judgement.PASS)


def test_a_generator_that_fell_behind_never_passes() -> None:
    verdict, why = load.judged(load.seen(record("." * 100, late_s=0.3), RATE), DELIVERED, Allowed(lost=0))
    assert verdict is Judgement.INCONCLUSIVE
    assert "fell behind its rate: 0% of the requests left on time" in why[0]


@pytest.mark.parametrize(("outage_ms", "judgement"), [(1510.0, Judgement.INCONCLUSIVE), (1800.0, Judgement.FAIL)])
def test_a_stall_accounts_for_so_much_of_an_outage(outage_ms: float, judgement: Judgement) -> None:
    late = record("." * 50 + "x" + "." * 49)
    late.late_s[51] = 1.5
    seen = load.seen(late, RATE) | {"outage_ms": outage_ms}
    assert load.judged(seen, DELIVERED, Allowed(outage_ms=200))[0] is judgement


def test_a_stall_hides_outages_shorter_than_itself() -> None:
    late = record("." * 100)
    late.late_s[50] = 0.4
    seen = load.seen(late, RATE)
    assert load.judged(seen, DELIVERED, Allowed())[0] is Judgement.PASS  # 99 of 100 left on time
    verdict, why = load.judged(seen, DELIVERED, Allowed(outage_ms=200))
    assert verdict is Judgement.INCONCLUSIVE
    assert "stood still for 400 ms" in why[0]


def test_an_answer_of_a_stranger_is_a_failure() -> None:
    verdict, why = load.judged(load.seen(record("...."), RATE), DELIVERED, Allowed(), {"pod/default/other": 2})
    assert verdict is Judgement.FAIL
    assert why == ["pod/default/other answered 2, and is no endpoint"]


def test_what_is_printed() -> None:
    seen = load.seen(record("..xx..t."), RATE)
    document = {"from": "pod/default/client", "to": "10.96.0.80:80/tcp", "proxy": "nftables", "protocol": "http", **seen}
    document |= {"backends": {"pod/default/a": 5}, "verdict": "fail", "why": ["3 of 8 requests were lost"]}
    assert load_text(document, False) == (
        "pod/default/client -> 10.96.0.80:80/tcp  (nftables, http, 100 of 100/s for 0.08 s)\n"
        "  FAIL  5 answered, 2 refused, 1 timed out of 8\n"
        "    pod/default/a      5  ████████████████████████\n"
        "  latency: p50 2 ms, p90 2 ms, p99 2 ms, max 2 ms\n"
        "  nobody answered for 20 ms, 20 ms after the beginning (2 requests lost)\n"
        "  nobody answered for 10 ms, 60 ms after the beginning (1 request lost)\n"
        "  why: 3 of 8 requests were lost\n"
    )


# ---------------------------------------------------------------- the generator, over the loopback


def answering(server: socket.socket, delay_s: float, answer: bytes, served: int) -> None:
    """Answer that many connections, each after a while."""

    def one(peer: socket.socket) -> None:
        with peer:
            peer.recv(4096)
            time.sleep(delay_s)
            peer.sendall(answer)

    threads = []
    for _ in range(served):
        threads.append(threading.Thread(target=one, args=(server.accept()[0],)))
        threads[-1].start()
    for thread in threads:
        thread.join()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Netlab-Pod: a\r\nConnection: close\r\n\r\n"


def generated(clock: Callable[[], float], timeout_s: float, answer: bytes = OK, delay_s: float = 0.05) -> LoadRecord:
    """20 requests a second for 0.3 s to a server here."""
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server, ours, theirs:
        thread = threading.Thread(target=answering, args=(server, delay_s, answer, 6))
        thread.start()
        here = ip_address("127.0.0.1")
        request = LoadRequest("", here, here, server.getsockname()[1], "http", 20, timeout_s, 0.3)
        made = Generator(request, ours, clock).run()
        thread.join()
    return made


def test_time_in_which_the_generator_did_not_run_counts_against_nobody() -> None:
    begun = time.monotonic()

    def jumping() -> float:
        now = time.monotonic()
        return now + (5.0 if now - begun > 0.12 else 0.0)

    made = generated(jumping, timeout_s=1.0)
    assert list(made.fates) == [Fate.ANSWERED] * 6
    assert max(made.late_s) > 4, "and that it was late is seen"
    assert load.judged(load.seen(made, 20), DELIVERED, Allowed())[0] is Judgement.INCONCLUSIVE


def test_a_deadline_is_a_deadline() -> None:
    made = generated(time.monotonic, timeout_s=0.02, delay_s=0.2)
    assert list(made.fates) == [Fate.TIMED_OUT] * 6


@pytest.mark.parametrize(
    ("answer", "fate"),
    [
        (OK, Fate.ANSWERED),
        (OK.replace(b"200 OK", b"503 No"), Fate.WRONG_STATUS),
        (OK.replace(b"Length: 0", b"Length: 9"), Fate.RESET),
        (b"what?\r\n\r\n", Fate.RESET),
        (b"", Fate.RESET),
    ],
)
def test_what_an_answer_counts_as(answer: bytes, fate: Fate) -> None:
    made = generated(time.monotonic, timeout_s=2.0, answer=answer, delay_s=0.0)
    assert list(made.fates) == [fate] * 6
    assert made.backends == ({"a": 6} if fate is Fate.ANSWERED else {})
