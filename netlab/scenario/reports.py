"""What is left of a run: a JSON document, a JUnit file, a page. Knows nothing of labs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from netlab.model import Judgement
from netlab.scenario.runner import heading
from netlab.scenario.side_by_side import Compared
from netlab.scenario.values import ScenarioRun, StepRun, exit_code


def document(runs: Sequence[ScenarioRun]) -> dict[str, Any]:
    """The results as plain JSON. Probe results stand under `details` of their steps, as the contract has them."""
    return {
        "exitCode": exit_code(runs),
        "scenarios": [
            {
                "name": run.name,
                "file": run.file,
                "proxy": run.proxy,
                "verdict": str(run.verdict),
                "seconds": round(run.seconds, 3),
                "steps": [_step(step) for step in run.steps],
            }
            for run in runs
        ],
    }


def html(runs: Sequence[ScenarioRun], compared: Sequence[Compared], facts: Sequence[str]) -> str:
    """The run as one self-contained page. `facts`: of the machine and the moment, for its head."""
    from netlab.observe import run_html

    comparisons = {one.file: one.comparison for one in compared}
    return run_html.render(document(runs), [run.cluster for run in runs], comparisons, facts)


def _step(ran: StepRun) -> dict[str, Any]:
    result = ran.result
    return {
        "kind": ran.step.kind,
        "title": ran.title,
        "line": ran.step.line,
        "verdict": str(result.verdict),
        "seconds": round(ran.seconds, 3),
        "summary": result.summary,
        "why": list(result.why),
        "details": dict(result.details),
        **ran.exhibits,
    }


def junit(runs: Sequence[ScenarioRun]) -> str:
    """A JUnit XML document: a test suite a scenario and mode, a test case a step; inconclusive steps are errors."""
    from xml.etree import ElementTree

    root = ElementTree.Element("testsuites", {"name": "netlab"})
    for run in runs:
        verdicts = [step.result.verdict for step in run.steps]
        counts = {
            "tests": str(len(verdicts)),
            "failures": str(verdicts.count(Judgement.FAIL)),
            "errors": str(verdicts.count(Judgement.INCONCLUSIVE)),
            "time": f"{run.seconds:.3f}",
        }
        name = printable(heading(run.name, run.proxy))
        suite = ElementTree.SubElement(root, "testsuite", {"name": name, "file": run.file, **counts})
        for number, step in enumerate(run.steps, 1):
            attributes = {"classname": name, "name": printable(f"{number}. {step.title}"), "time": f"{step.seconds:.3f}"}
            case = ElementTree.SubElement(suite, "testcase", attributes)
            if step.result.verdict is not Judgement.PASS:
                tag = "failure" if step.result.verdict is Judgement.FAIL else "error"
                first = printable("\n".join(step.result.why)).partition("\n")[0]
                ElementTree.SubElement(case, tag, {"message": first}).text = printable("\n".join(_evidence(step)))
            if "pcap" in step.exhibits:  # as Jenkins and GitLab take files that belong to a test
                path = Path(step.exhibits["pcap"]).absolute()
                ElementTree.SubElement(case, "system-out").text = printable(f"packets: {path}\n[[ATTACHMENT|{path}]]")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _evidence(step: StepRun) -> Iterator[str]:
    """Why a step did not pass: its reasons, where its packets are, and the stories of flows that failed."""
    from netlab.observe import explain_text

    yield from step.result.why
    if "pcap" in step.exhibits:
        yield f"packets: {step.exhibits['pcap']}"
    if problem := step.exhibits.get("pcap_problem"):
        yield f"no packets were recorded: {problem}"
    for told in step.exhibits.get("explain", ()):
        yield "\n" + explain_text.text(told, False, False).rstrip()
    yield from step.exhibits.get("notes", ())


def printable(text: str) -> str:
    """XML 1.0 has no way to write control characters, and programs print them."""
    return "".join(letter if letter >= " " or letter in "\n\t" else "�" for letter in text)
