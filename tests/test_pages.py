"""The pages of `report` and `run --html`: what stands on them, and that the pictures of spreads tell fair from unfair."""

import math
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from netlab import plan
from netlab.differences import compare
from netlab.observe import plots, report_html, results_html, run_html
from tests import explaining

VOID = {"meta", "input", "br", "link", "img"}


class Nesting(HTMLParser):
    """Tags that do not close what they opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def well_formed(text: str) -> bool:
    nesting = Nesting()
    nesting.feed(text)
    return not nesting.wrong and not nesting.open


def result(counts: dict[str, int], verdict: str = "pass", **more: Any) -> dict[str, Any]:
    sent = sum(counts.values())
    return {
        "from": "pod/default/client", "to": "10.96.0.1:80/tcp", "proxy": "nftables", "sent": sent,
        "outcomes": {"delivered": sent, "rejected": 0, "dropped": 0}, "backends": counts, "sources": {"10.244.0.2": sent},
        "distribution": {"test": "chi-square", "p": 0.5, "alpha": 1e-6},
        "expected": {"outcome": "delivered", "backends": ["pod/a", "pod/b"], "masqueraded": False}, "verdict": verdict, "why": [],
        **more,
    }  # fmt: skip


@pytest.mark.parametrize(("sent", "share"), [(10, 0.5), (60, 1 / 3), (300, 1 / 7), (900, 0.5)])
def test_the_band_holds_all_but_its_share_of_chance(sent: int, share: float) -> None:
    low, high = plots.band(sent, share, 1e-6)

    def chance(counts: range) -> float:
        return sum(math.comb(sent, k) * share**k * (1 - share) ** (sent - k) for k in counts)

    outside = chance(range(low)) + chance(range(high + 1, sent + 1))
    assert outside <= 1e-6
    assert chance(range(low + 1)) > 5e-7 and chance(range(high, sent + 1)) > 5e-7, "it is no wider than it must be"
    assert plots.band(sent, 0.0) == (0, 0) and plots.band(sent, 1.0) == (sent, sent)


def test_a_plot_marks_what_is_outside_its_band_and_strangers() -> None:
    fair, unfair = plots.backends(result({"pod/a": 150, "pod/b": 150})), plots.backends(result({"pod/a": 295, "pod/b": 5}))
    assert "outside" not in fair and 'class="out"' not in fair and fair.count('class="band"') == 2
    assert unfair.count(" outside<") == 2 and unfair.count('class="out"') == 2
    stranger = plots.backends(result({"pod/a": 140, "pod/b": 140, "pod/x": 20}))
    assert stranger.count("not expected<") == 1
    assert plots.backends(result({"pod/a": 0})) == ""
    turns = {"outcome": "delivered", "backends": ["pod/a", "pod/b"], "spread": "turns"}
    assert "expected between 4 and 5" in plots.backends(result({"pod/a": 5, "pod/b": 4}, expected=turns))
    assert plots.backends(result({"pod/a": 7, "pod/b": 2}, expected=turns)).count(" outside<") == 2


def run_document(**step: Any) -> dict[str, Any]:
    common = {"kind": "probe", "line": 8, "seconds": 0.5, "summary": "seen", "why": [], "details": {}}
    steps = [{**common, "title": "fine", "verdict": "pass", "details": result({"pod/a": 10, "pod/b": 12})},
             {**common, "title": "bad <thing>", "verdict": "fail", **step}]  # fmt: skip
    run = {"name": "n", "file": "n.yaml", "proxy": "nftables", "verdict": "fail", "seconds": 1.25, "steps": steps}
    return {"exitCode": 1, "scenarios": [run]}


def test_a_run_shows_failures_open_with_reasons_and_everything_else_closed() -> None:
    cluster, _ = explaining.made()
    bad = result({"pod/a": 22, "pod/b": 0}, "fail", why=["the spread is not even <1>"])
    text = run_html.render(run_document(details=bad, why=["the spread is not even <1>"]), [cluster], {}, ["now"])
    assert well_formed(text)
    opened = re.findall(r"<details open>.*?</b>", text)
    assert len(opened) == 1 and "bad &lt;thing&gt;" in opened[0]
    assert text.count("the spread is not even &lt;1&gt;") == 1 and "<thing>" not in text
    assert "1 pass" in text and "1 fail" in text and "n.yaml:8" in text


@pytest.mark.parametrize(
    ("details", "shown"),
    [
        ({"code": 7, "stdout": "<out>", "stderr": ""}, "&lt;out&gt;"),
        ({"traceback": "Traceback: boom"}, "Traceback: boom"),
        ({"results": [result({"pod/a": 1}, "fail", why=["lost"])]}, "lost"),
    ],
)
def test_every_kind_of_step_shows_its_evidence(details: dict[str, Any], shown: str) -> None:
    text = run_html.render(run_document(details=details, why=["so"]), [None], {}, [])
    assert shown in text and well_formed(text)


def test_modes_stand_side_by_side_and_an_unexplained_difference_is_said() -> None:
    one = result({"pod/a": 1})
    other = {
        **one,
        "expected": {"outcome": "rejected", "backends": []},
        "outcomes": {"delivered": 0, "rejected": 1, "dropped": 0},
    }
    text = results_html.modes(compare({"iptables": [one], "nftables": [other]}), {"10.96.0.1": "svc/web"})
    assert "svc/web:80" in text and "unexplained" in text and "iptables and nftables disagree" in text and well_formed(text)
    assert "disagree" not in results_html.modes(compare({"iptables": [one], "nftables": [one]}), {})


def test_a_matrix_has_a_sign_a_pair_and_names_what_failed() -> None:
    rows = [result({"pod/a": 1}), {**result({}, "fail", why=["nothing came"]), "from": "pod/default/x"}]
    text = results_html.grid(rows, {})
    assert text.count(">✓<") == 1 and text.count('class="f"') == 1 and "nothing came" in text and well_formed(text)


def test_a_report_of_a_lab_has_everything_and_says_what_was_not_asked() -> None:
    cluster, planned = explaining.made()
    found = report_html.Findings("x", cluster, planned, None, "--no-matrix", (), ("now",))
    text = report_html.render(found)
    assert well_formed(text) and found.verdict == "pass" and "--no-matrix" in text and "no drift" in text
    for pod in cluster.pods.values():
        assert pod.meta.name in text
    assert "KUBE" in text or "kube-proxy" in text or "nat" in text
    drifted = report_html.Findings("x", cluster, planned, (result({"pod/a": 1}, "inconclusive"),), "", ("a rule is gone",), ())
    assert drifted.verdict == "fail" and "a rule is gone" in report_html.render(drifted)
    unsure = report_html.Findings("x", cluster, planned, (result({"pod/a": 1}, "inconclusive"),), "", (), ())
    assert unsure.verdict == "inconclusive"
    assert plan.text(planned)


def test_columns_of_both_families_are_told_apart() -> None:
    names = {
        "10.96.1.2": "svc/prefer",
        "fd00::101": "svc/prefer",
        "10.96.1.9": "svc/one",
        "10.244.0.2": "pod/a",
        "fd00::2": "pod/a",
    }
    names |= {"192.168.0.10": "node/a", "192.168.1.10": "node/a"}
    targets = ["10.96.1.2:80/tcp", "[fd00::101]:80/tcp", "10.96.1.9:80/tcp", "10.244.0.2/icmp", "fd00::2/icmp"]
    told = results_html.headings([*targets, "192.168.0.10:80/tcp", "192.168.1.10:80/tcp"], names)
    assert [told[one] for one in targets] == [
        "svc/prefer:80 IPv4", "svc/prefer:80 IPv6", "svc/one:80", "pod/a/icmp IPv4", "pod/a/icmp IPv6",
    ]  # fmt: skip
    assert told["192.168.1.10:80/tcp"] == "node/a:80 192.168.1.10:80/tcp", "two of one family"
    result = {"from": "pod/b", "outcomes": {"delivered": 1}, "verdict": "pass", "why": []}
    text = results_html.grid([{**result, "to": one} for one in targets], names)
    assert text.count("svc/prefer:80 IPv6") == 1
