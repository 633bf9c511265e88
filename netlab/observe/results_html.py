"""Probe results, matrices and modes side by side as markup for a page. Pure: the contract's JSON in, HTML out."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from netlab.differences import Comparison, Pair
from netlab.model import Cluster
from netlab.observe import graph, plots
from netlab.observe.page import pill, reasons, table

Result = Mapping[str, Any]
SIGNS = {"delivered": "✓", "rejected": "↩", "dropped": "·"}
LEGEND = (
    "✓ delivered, ↩ refused, · dropped, as expected of it; a filled cell is not as expected (! failed, ? evidence is missing)"
)
WORDS = {"delivered": "ok", "rejected": "refused", "dropped": "dropped"}


def probe(result: Result) -> str:
    """One result: what became of the flows, where they arrived, from which sources, against what was expected."""
    seen = ", ".join(f"{number} {word}" for word, number in result["outcomes"].items() if number) or "nothing"
    facts = [("sent", str(result["sent"])), ("seen", seen), ("expected", expectation(result))]
    if result["sources"]:
        sources = ", ".join(f"{address} ({number})" for address, number in result["sources"].items())
        facts.append(("sources that backends saw", sources))
    facts += [("note", line) for line in result.get("notes", ())]
    return table(("", ""), facts) + plots.backends(result) + reasons(result["why"] if result["verdict"] != "pass" else ())


def expectation(result: Result) -> str:
    """What Kubernetes promises of this flow, in words."""
    expected = result["expected"]
    words = str(expected["outcome"])
    if backends := expected.get("backends"):
        words += f" to {backends[0]}" if len(backends) == 1 else f" to one of {len(backends)}"
        masqueraded = expected.get("masqueraded")
        if isinstance(masqueraded, Mapping):
            words += ", masqueraded for some"
        else:
            words += ", masqueraded" if masqueraded else ", source kept"
    if why := expected.get("why"):
        words += f" ({why})"
    return words


def labels(cluster: Cluster) -> Mapping[str, str]:
    """Address -> whose it is, for headings: the address alone says little to a reader."""
    found = {str(address): f"pod/{graph.label(pod.ref)}" for pod in cluster.pods.values() for address in pod.addresses}
    found |= {str(ip): f"svc/{graph.label(one.ref)}" for one in cluster.services.values() for ip in one.cluster_ips}
    return found


def named(target: str, names: Mapping[str, str]) -> str:
    """`10.96.0.1:80/tcp` as `svc/kubia:80`; another protocol than TCP stays."""
    address, slash, protocol = target.rpartition("/")
    if address in names:  # of a protocol without ports
        return names[address] + slash + protocol
    host, colon, port = (address or target).rpartition(":")
    if (name := names.get(host.strip("[]") if colon else address)) is None:
        return target
    return name + (f":{port}" if colon else "") + ("" if protocol == "tcp" else slash + protocol)


def headings(targets: Sequence[str], names: Mapping[str, str]) -> Mapping[str, str]:
    """Target -> its name; with the family where a name has several addresses, with the address where that is not enough."""
    plain = {target: named(target, names) for target in targets}
    family = {
        target: f"{name} {'IPv6' if target.startswith('[') or target.count(':') > 1 else 'IPv4'}"
        for target, name in plain.items()
    }
    often, still = Counter(plain.values()), Counter(family.values())
    return {
        target: name if often[name] == 1 else family[target] if still[family[target]] == 1 else f"{name} {target}"
        for target, name in plain.items()
    }


def grid(results: Sequence[Result], names: Mapping[str, str]) -> str:
    """A matrix: a row a sender, a column a destination, a sign a pair; below, what was not as expected."""
    senders = list(dict.fromkeys(one["from"] for one in results))
    targets = list(dict.fromkeys(one["to"] for one in results))
    by_pair = {(one["from"], one["to"]): one for one in results}
    told = headings(targets, names)
    head = "".join(f"<th title='{escape(to, quote=True)}'><span>{escape(told[to])}</span></th>" for to in targets)
    rows = []
    for sender in senders:
        cells = "".join(_cell(by_pair.get((sender, target))) for target in targets)
        rows.append(f'<tr><th scope="row">{escape(short(sender))}</th>{cells}</tr>')
    wrong = [one for one in results if one["verdict"] != "pass"]
    lines = [f"{one['from']} → {one['to']}: {'; '.join(one['why']) or one['verdict']}" for one in wrong]
    table_rows = f"<tbody>{''.join(rows)}</tbody>"
    return (
        f'<div class="wide"><table class="grid"><thead><tr><th></th>{head}</tr></thead>{table_rows}</table></div>'
        f'<p class="soft">{escape(LEGEND)}</p>{reasons(lines[:50])}'
        + (f'<p class="soft">and {len(lines) - 50} more</p>' if len(lines) > 50 else "")
    )


def short(name: str) -> str:
    """Without the namespace where it is `default`."""
    return name.replace("/default/", "/", 1)


def _cell(result: Result | None) -> str:
    if result is None:
        return '<td class="none"></td>'
    seen = next((word for word, number in result["outcomes"].items() if number), "")
    title = escape(f"{result['from']} → {result['to']}: {seen}, {result['verdict']}", quote=True)
    match result["verdict"]:
        case "pass":
            return f'<td title="{title}">{SIGNS.get(seen, "")}</td>'
        case "fail":
            return f'<td class="f" title="{title}">!</td>'
        case _:
            return f'<td class="i" title="{title}">?</td>'


def modes(comparison: Comparison, names: Mapping[str, str]) -> str:
    """A row a flow, a column a mode; below, each disagreement with the known difference that explains it, or that none does."""
    named_ends = headings(list(dict.fromkeys(pair.to for pair in comparison.pairs)), names)
    rows = [
        [short(pair.sender), named_ends[pair.to], *(_seen(pair.results.get(mode)) for mode in comparison.modes), _note(pair)]
        for pair in comparison.pairs
    ]
    odd = comparison.disagreements
    head = f'<p class="soft">{len(rows)} flows: {len(rows) - len(odd)} alike in every mode, {len(odd)} not.</p>'
    known = dict.fromkeys(reason for pair in odd for reason in pair.explained)
    told = "".join(f"<li>row {row}: {escape(text)}</li>" for row, text in sorted(known))
    unknown = [line for pair in odd for line in _unexplained(pair)]
    return (
        head
        + table(("from", "to", *comparison.modes, ""), rows)
        + (f'<ul class="soft">{told}</ul>' if told else "")
        + reasons(unknown)
    )


def _seen(result: Result | None) -> str:
    if result is None:
        return "–"
    seen = " + ".join(WORDS.get(word, word) for word, number in result["outcomes"].items() if number) or "–"
    backends = result["expected"].get("backends") or ()
    if backends and seen == "ok":
        seen += f", {len(result['backends'])} of {len(backends)}" if len(backends) > 1 else ""
        seen += ", masqueraded" if result["expected"].get("masqueraded") else ""
    return seen + {"pass": "", "fail": " ✗", "inconclusive": " ?"}[result["verdict"]]


def _note(pair: Pair) -> str:
    if pair.unexplained:
        return "unexplained"
    return f"row {', '.join(str(row) for row, _ in pair.explained)}" if pair.explained else ""


def _unexplained(pair: Pair) -> Iterator[str]:
    for one, other in pair.unexplained:
        yield f"{pair.sender} → {pair.to}: {one} and {other} disagree, and no known difference explains it"


def verdicts(found: Sequence[str]) -> str:
    """How many of each, as pills."""
    return " ".join(pill(word, f"{found.count(word)} {word}") for word in ("pass", "fail", "inconclusive") if word in found)
