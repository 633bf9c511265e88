"""What netlab's HTML pages share: the look, the policy that keeps them to themselves, and small pieces of markup. Pure.

Decides colours (a light and a dark scheme, chosen by the browser) and that nothing rests on colour alone: every verdict has a
word or a sign. A page is one file; its Content-Security-Policy makes the browser itself refuse to fetch anything.
"""

from collections.abc import Iterable, Sequence
from html import escape

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
"""Content-Security-Policy: the browser itself refuses whatever would be fetched."""

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--box:#f6f8fa;--acc:#0072B2;
 --good:#007a56;--bad:#b84a00;--warn:#8a5a00;--band:#cfe3f3}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--ink:#e6edf3;--soft:#9da7b3;--line:#30363d;--box:#161b22;
 --acc:#56B4E9;--good:#2fd6a0;--bad:#ff9b57;--warn:#e6b800;--band:#1d3a54}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1240px;padding:0 22px 60px;font:14px/1.5 system-ui,sans-serif;
 background:var(--bg);color:var(--ink)}
header{padding:22px 0 12px;border-bottom:1px solid var(--line)}h1{font-size:22px;margin:0 0 4px}
h2{font-size:17px;margin:34px 0 8px}h3{font-size:14px;margin:18px 0 6px}.soft{color:var(--soft)}
a{color:var(--acc)}nav{padding:10px 0;display:flex;flex-wrap:wrap;gap:4px 16px}
.pill{display:inline-block;padding:0 9px;border-radius:10px;border:1px solid currentColor;font-weight:600;font-size:12px}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
table{border-collapse:collapse;font-size:13px}th{text-align:left;font-weight:600;color:var(--soft);font-size:12px}
td,th{padding:3px 14px 3px 0;vertical-align:top;border-bottom:1px solid var(--line)}tbody tr:last-child td{border-bottom:0}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.wide{overflow-x:auto}pre,code{font:12px/1.45 ui-monospace,monospace}
pre{background:var(--box);border:1px solid var(--line);border-radius:6px;padding:8px 10px;overflow-x:auto;margin:6px 0;
 max-height:34em}
figure{margin:8px 0;border:1px solid var(--line);border-radius:8px;overflow:auto}
figure>svg{display:block;max-width:100%;height:auto}
details{border-bottom:1px solid var(--line)}details.bare{border:0}summary{cursor:pointer;padding:5px 0}
details>div{padding:2px 0 12px 22px}
summary:focus-visible,a:focus-visible{outline:2px solid var(--acc);outline-offset:2px}
ul.why{margin:6px 0;padding-left:18px}ul.why li{color:var(--bad)}ul.why li span{color:var(--ink)}
.step{display:inline-grid;grid-template-columns:58px 30px minmax(0,1fr) auto;gap:8px;width:calc(100% - 24px);
 vertical-align:top}.step>:nth-child(2),.step>:last-child{text-align:right;font-variant-numeric:tabular-nums;color:var(--soft)}
iframe{width:100%;height:760px;border:1px solid var(--line);border-radius:8px;background:var(--bg)}
svg.plot{max-width:100%;height:auto;display:block}svg.plot text{fill:var(--ink);font:12px system-ui,sans-serif}
svg.plot .soft{fill:var(--soft)}svg.plot .band{fill:var(--band)}svg.plot .bar{fill:var(--acc)}svg.plot .out{fill:var(--bad)}
svg.plot .mean{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:3 2}
table.grid td,table.grid th{padding:0;border:1px solid var(--line);font-size:11px}
table.grid td{min-width:17px;height:17px;text-align:center;cursor:default}
table.grid th{padding:1px 6px;font-weight:400;color:var(--ink)}
table.grid thead th{vertical-align:bottom;height:8em;padding:4px 1px}
table.grid thead th>span{writing-mode:vertical-rl;transform:rotate(180deg);white-space:nowrap;max-height:16em;overflow:hidden}
table.grid td.f{background:var(--bad);color:var(--bg);font-weight:700}table.grid td.i{background:var(--warn);color:var(--bg)}
table.grid td.none{background:var(--box)}
@media print{body{max-width:none}details>div{display:block}}
"""

TONES = {"pass": "good", "fail": "bad", "inconclusive": "warn"}


def page(title: str, body: str, style: str = "") -> str:
    """A whole page around `body`."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(title)}</title>
<style>{STYLE}{style}</style></head>
<body>{body}</body></html>
"""


def pill(verdict: str, words: str = "") -> str:
    """A verdict as a word in its colour."""
    return f'<span class="pill {TONES.get(verdict, "soft")}">{escape(words or verdict)}</span>'


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: frozenset[int] = frozenset()) -> str:
    """A table of texts; `numbers` are the columns that are set to the right. Cells are escaped. '' without rows."""
    found = [list(row) for row in rows]
    if not found:
        return ""

    def cell(tag: str, at: int, words: str) -> str:
        kind = ' class="n"' if at in numbers else ""
        return f"<{tag}{kind}>{escape(words)}</{tag}>"

    head = "".join(cell("th", at, words) for at, words in enumerate(heads))
    body = "".join("<tr>" + "".join(cell("td", at, words) for at, words in enumerate(row)) + "</tr>" for row in found)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def details(summary: str, inside: str, opened: bool = False, kind: str = "") -> str:
    """Something to be opened; `summary` and `inside` are markup."""
    name = f' class="{kind}"' if kind else ""
    return f"<details{name}{' open' if opened else ''}><summary>{summary}</summary><div>{inside}</div></details>"


def reasons(lines: Iterable[str]) -> str:
    """A list of why something is not as it should be; '' for none."""
    found = "".join(f"<li><span>{escape(line)}</span></li>" for line in lines)
    return f'<ul class="why">{found}</ul>' if found else ""
