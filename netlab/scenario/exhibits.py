"""What is kept of a run beside its verdicts: the lab as it began, the packets of a step, the story of a flow that failed.

Decides what is worth keeping and under which name. Refuses to judge: an explanation sends a packet of its own, after the verdict.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netlab.errors import InputError, NetlabError
from netlab.manifest import Step
from netlab.model import Cluster, Judgement
from netlab.scenario.evidence import capture
from netlab.scenario.values import Lab, StepRun

EXPLAINED = 3
"""Failed flows of one step that are explained."""
PROTOCOLS = ("tcp", "udp", "sctp", "icmp")


@dataclass(frozen=True, slots=True)
class Exhibits:
    """What to keep. `stories`: explain what failed, and keep the topology; `packets`: a directory for pcapng files;
    `all_packets`: also of steps that passed."""

    stories: bool = False
    packets: Path | None = None
    all_packets: bool = False

    def cluster(self, lab: Lab) -> Cluster | None:
        """The lab's state, to be drawn."""
        return lab.cluster() if self.stories else None

    def record(self, lab: Lab, heading: str, number: int, step: Step, run: Callable[[], StepRun]) -> StepRun:
        """Run a step, its packets recorded on every interface of the lab; `exhibits` of the answer says what was kept."""
        path = self._path(heading, number, step)
        ran, problem = self._recorded(lab, run, path)
        kept: dict[str, Any] = {"pcap_problem": problem} if problem else {}
        bad = ran.result.verdict is not Judgement.PASS
        if path is not None and path.exists():
            if bad or self.all_packets:
                kept["pcap"] = str(path)
            else:
                path.unlink()
        if bad and self.stories and ran.result.details.get("lab") != "gone":
            kept |= stories(lab, ran)
        return ran if not kept else ran.with_exhibits(kept)

    def _recorded(self, lab: Lab, run: Callable[[], StepRun], path: Path | None) -> tuple[StepRun, str]:
        if path is None:
            return run(), ""
        done: list[StepRun] = []
        try:
            capture(lab, lambda: done.append(run()), path)
        except NetlabError as error:
            return done[0] if done else run(), str(error)
        return done[0], ""

    def _path(self, heading: str, number: int, step: Step) -> Path | None:
        if self.packets is None:
            return None
        try:
            self.packets.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.packets}: {error.strerror}") from None
        words = re.sub(r"[^A-Za-z0-9.]+", "-", heading).strip("-")
        return self.packets / f"{words}-{number:02}-{step.kind}.pcapng"


def stories(lab: Lab, ran: StepRun) -> Mapping[str, Any]:
    """{"explain": documents of `netlab explain` for flows of the step that did not pass, "notes": why one has none}."""
    found, notes = [], []
    for question in list(questions(ran))[:EXPLAINED]:
        try:
            found.append(lab.explain(**question))
        except NetlabError as error:
            notes.append(f"{question['sender']} -> {question['to']} cannot be explained: {error}")
    return {"explain": found, "notes": notes} if found or notes else {}


def questions(ran: StepRun) -> Iterator[dict[str, Any]]:
    """The arguments of `explain` for every flow of a step that did not pass."""
    given, details = ran.step.arguments, ran.result.details
    match ran.step.kind:
        case "probe" | "load" if "from" in details:
            options = {name: given[key] for key, name in OPTIONS.items() if key in given}
            if options.get("protocol") == "http":
                del options["protocol"]
            to = re.sub(r"^https?://([^/]+).*", r"\1", str(given["to"]))
            yield {"sender": details["from"], "to": to, **options}
        case "matrix":
            for result in details.get("results", ()):
                if result["verdict"] != "pass":
                    to, _, protocol = str(result["to"]).rpartition("/")
                    known = protocol in PROTOCOLS
                    yield {"sender": result["from"], "to": to, "protocol": protocol} if known else {
                        "sender": result["from"], "to": result["to"]
                    }  # fmt: skip
        case _:
            return


OPTIONS = {"protocol": "protocol", "source": "source", "sourcePort": "source_port", "namespace": "namespace"}
