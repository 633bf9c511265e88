"""A run of scenarios as one self-contained page: topology, steps with times, verdicts with their evidence, modes side by side.

Pure: the run's JSON document (scenario/reports.py) in, HTML out. Failures are open when the page is, everything else is closed.
The story of a failed flow is there twice: as text, and to be stepped through, in a frame of its own (srcdoc: no request).
"""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from netlab.differences import Comparison
from netlab.model import Cluster
from netlab.observe import explain_html, explain_text, graph, graph_svg, results_html
from netlab.observe.page import details, page, pill, reasons, table

Document = Mapping[str, Any]
BAR_W, BAR_H = 1180, 16


def render(
    document: Document, clusters: Sequence[Cluster | None], comparisons: Mapping[str, Comparison], facts: Sequence[str]
) -> str:
    """The page. `clusters`: as each run began, in the document's order; `comparisons`: by scenario file."""
    runs = document["scenarios"]
    steps = [step["verdict"] for run in runs for step in run["steps"]]
    took = sum(run["seconds"] for run in runs)
    title = ", ".join(dict.fromkeys(run["name"] for run in runs)) or "nothing"
    title = title if len(title) < 60 else f"{len({run['name'] for run in runs})} scenarios"
    head = (
        f"<header><h1>netlab run: {escape(title)}</h1><p>{results_html.verdicts(steps)} "
        f"<span class='soft'>{_many(len(steps), 'step')} in {_many(len(runs), 'lab')}, {took:.1f} s · "
        f"{escape(' · '.join(facts))}</span></p></header>"
    )
    links = "".join(
        f'<span><a href="#run{number}">{escape(_heading(run))}</a> {pill(run["verdict"])}</span>'
        for number, run in enumerate(runs)
    )
    body = []
    for number, (run, cluster) in enumerate(zip(runs, clusters, strict=True)):
        last = number + 1 == len(runs) or runs[number + 1]["file"] != run["file"]
        body.append(_run(run, cluster, number))
        if last and run["file"] in comparisons:
            body.append(
                f"<h3>{escape(run['name'])} in every mode</h3>{results_html.modes(comparisons[run['file']], _names(cluster))}"
            )
    return page(f"netlab run: {title}", f"{head}<nav>{links}</nav>{''.join(body)}")


def _many(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _heading(run: Document) -> str:
    return f"{run['name']} [{run['proxy']}]" if run["proxy"] else str(run["name"])


def _run(run: Document, cluster: Cluster | None, number: int) -> str:
    summary = f"{escape(run['file'])} · {_many(len(run['steps']), 'step')}, {run['seconds']:.2f} s"
    drawn = details("Topology, as the run began", _drawing(cluster)) if cluster is not None else ""
    steps = "".join(_step(step, at, run, cluster) for at, step in enumerate(run["steps"], 1))
    return (
        f'<section id="run{number}"><h2>{escape(_heading(run))} {pill(run["verdict"])}</h2><p class="soft">{summary}</p>'
        f"{_times(run)}{drawn}{steps}</section>"
    )


def _drawing(cluster: Cluster) -> str:
    return f"<figure>{graph_svg.svg(graph.graph(cluster))}</figure>"


def _times(run: Document) -> str:
    """The steps on one bar, each as wide as it took."""
    total = sum(step["seconds"] for step in run["steps"])
    if not total:
        return ""
    tones = {"pass": "var(--acc)", "fail": "var(--bad)", "inconclusive": "var(--warn)"}
    x, parts = 0.0, []
    for number, step in enumerate(run["steps"], 1):
        width = max(step["seconds"] / total * BAR_W, 2.0)
        title = f"{number}. {step['title']}: {step['seconds']:.2f} s, {step['verdict']}"
        parts.append(
            f'<rect x="{x:.1f}" y="0" width="{max(width - 1.5, 1):.1f}" height="{BAR_H}" rx="2" fill="{tones[step["verdict"]]}">'
            f"<title>{escape(title)}</title></rect>"
        )
        x += width
    size = f'viewBox="0 0 {x:.0f} {BAR_H}" width="{x:.0f}" height="{BAR_H}"'
    return f'<svg class="plot" role="img" {size}><title>time by step</title>{"".join(parts)}</svg>'


def _step(step: Document, number: int, run: Document, cluster: Cluster | None) -> str:
    line = (
        f'<span class="step"><span>{pill(step["verdict"], "?" if step["verdict"] == "inconclusive" else "")}</span>'
        f"<span>{number}</span><span><b>{escape(step['title'])}</b> <span class='soft'>{escape(step['summary'])}</span></span>"
        f"<span>{step['seconds']:.2f} s</span></span>"
    )
    where = f'<p class="soft">{escape(run["file"])}:{step["line"]} · {escape(step["kind"])}</p>'
    inside = where + _evidence(step, cluster) + "".join(_story(one, cluster) for one in step.get("explain", ()))
    if step.get("pcap"):
        inside += f"<p>packets: <code>{escape(step['pcap'])}</code></p>"
    return details(line, inside, step["verdict"] != "pass")


def _names(cluster: Cluster | None) -> Mapping[str, str]:
    return results_html.labels(cluster) if cluster is not None else {}


def _evidence(step: Document, cluster: Cluster | None) -> str:
    found = step["details"]
    if "outcomes" in found:
        own = [line for line in step["why"] if line not in found["why"]]
        return results_html.probe(found) + reasons(own)
    said = reasons(step["why"])
    if found.get("results"):
        return results_html.grid(found["results"], _names(cluster))
    if "stdout" in found:
        rows = [("exit code", str(found["code"]))]
        printed = "".join(f"<pre>{escape(_end(found[name]))}</pre>" for name in ("stdout", "stderr") if found[name].strip())
        return said + table(("", ""), rows) + printed
    if "latency_ms" in found:
        return said + _load(found)
    if "traceback" in found:
        return said + f"<pre>{escape(found['traceback'])}</pre>"
    return said


def _load(found: Document) -> str:
    """A load: its counts, how fast it was answered, and what was done meanwhile."""
    latency = ", ".join(f"{name} {value:g} ms" for name, value in found["latency_ms"].items() if value is not None)
    said = {name: value for name, value in found.items() if name in ("sent", "answered", "lost") or value}
    rows = [(name.replace("_", " "), str(value)) for name, value in said.items() if isinstance(value, int | float | str)]
    inner = [(step["kind"], step["title"], step["verdict"]) for step in found.get("steps", ())]
    return table(("", ""), [*rows, ("latency", latency)]) + table(("meanwhile", "", ""), inner)


def _end(text: str, most: int = 4000) -> str:
    return text if len(text) <= most else text[:most] + f"\n... and {len(text) - most} more characters"


def _story(document: Document, cluster: Cluster | None) -> str:
    """One packet like those that failed, explained."""
    text = f"<pre>{escape(explain_text.text(document))}</pre>"
    title = f"One packet, explained: {document['from']} → {document['to']}, {document['outcome']}"
    frame = ""
    if cluster is not None:
        inner = escape(explain_html.page(document, cluster), quote=True)
        frame = details(
            "Step through it", f'<iframe loading="lazy" title="{escape(title, quote=True)}" srcdoc="{inner}"></iframe>'
        )
    return f"<h3>{escape(title)}</h3>{text}{frame}"
