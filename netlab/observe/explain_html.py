"""The document of `explain` as one self-contained page: the packet, stepped through over the drawn lab.

Decides which events are steps and where on the drawing each takes place. Pure. Nothing is fetched: a Content-Security-Policy in
the page makes the browser itself refuse. Keys: arrows, Home, End, space; Tab reaches every step.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from netlab.model import Cluster, variant_of
from netlab.observe import graph as content
from netlab.observe import graph_svg
from netlab.observe.explain_text import carried, conntrack, shown
from netlab.observe.graph_svg import Layout
from netlab.observe.page import POLICY

MANY_NODES = 6
"""Nodes above which those that the packet did not meet are left out of the drawing."""

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--box:#f6f8fa;--acc:#0072B2;
 --good:#007a56;--bad:#b84a00;--warn:#8a5a00;--sel:#ddebf7}
@media(prefers-color-scheme:dark){:root{--bg:#0d1117;--ink:#e6edf3;--soft:#9da7b3;--line:#30363d;--box:#161b22;
 --acc:#56B4E9;--good:#2fd6a0;--bad:#ff9b57;--warn:#e6b800;--sel:#12304a}}
*{box-sizing:border-box}body{margin:0;font:14px/1.45 system-ui,sans-serif;background:var(--bg);color:var(--ink)}
header{padding:14px 18px 8px;border-bottom:1px solid var(--line)}h1{font-size:18px;margin:0 0 2px}.soft{color:var(--soft)}
.pill{display:inline-block;padding:1px 9px;border-radius:10px;border:1px solid currentColor;font-weight:600;margin-right:8px}
.good{color:var(--good)}.bad{color:var(--bad)}.warn{color:var(--warn)}
main{display:grid;grid-template-columns:minmax(0,1fr) 400px;gap:14px;padding:14px 18px}
@media(max-width:1000px){main{grid-template-columns:1fr}}
figure{margin:0;border:1px solid var(--line);border-radius:8px;overflow:auto}figure svg{display:block;width:100%;height:auto}
.controls{display:flex;gap:8px;align-items:center;margin:10px 0}button{font:inherit;padding:5px 12px;
 border:1px solid var(--line);border-radius:6px;background:var(--box);color:var(--ink);cursor:pointer}
button:focus-visible,li:focus-visible{outline:2px solid var(--acc);outline-offset:1px}input[type=range]{flex:1;
 accent-color:var(--acc)}
#now{border:1px solid var(--line);border-left:4px solid var(--acc);border-radius:6px;padding:10px 12px;
 background:var(--box);min-height:9em}
#now h2{font-size:15px;margin:0 0 4px}#now code,pre{font:12px/1.45 ui-monospace,monospace;white-space:pre-wrap;
 overflow-wrap:anywhere}
#now .rests{margin-top:6px;font-size:12px}ol{list-style:none;margin:0;padding:0;border:1px solid var(--line);
 border-radius:8px;max-height:72vh;overflow:auto}
li{padding:4px 10px;cursor:pointer;border-bottom:1px solid var(--line);display:grid;grid-template-columns:58px 1fr;
 gap:6px}li:last-child{border:0}
li.place{background:var(--box);font-weight:600;cursor:default;display:block}li[aria-current=step]{background:var(--sel)}
li time{color:var(--soft);text-align:right;font-variant-numeric:tabular-nums}.owner{color:var(--acc)}
section{padding:0 18px 14px}dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:0}
 dt{font-weight:600}dd{margin:0}
#trail{fill:none;stroke:var(--acc);stroke-width:4;stroke-linejoin:round;opacity:.75}#gone{fill:none;stroke:var(--acc);stroke-width:3;opacity:.3}
#trail.back{stroke-dasharray:9 6}
#packet{transition:transform .28s ease}#packet circle{fill:#E69F00;stroke:#1b1f24;stroke-width:2}
@media(prefers-reduced-motion:reduce){#packet{transition:none}}
.here{stroke:#E69F00 !important;stroke-width:3 !important}
"""

SCRIPT = """
const S=JSON.parse(document.getElementById('steps').textContent);let i=0,timer=null;
const $=id=>document.getElementById(id),items=[...document.querySelectorAll('li[data-step]')];
function show(n){i=Math.max(0,Math.min(S.length-1,n));const s=S[i];
 $('packet').style.transform=`translate(${s.x}px,${s.y}px)`;
 const from=s.back?S.findIndex(o=>o.back):0;const pts=S.slice(from,i+1);
 const leg=(o,p)=>(p.y<o.y)!==(o.pod||p.pod)?`H${p.x}V${p.y}`:`V${p.y}H${p.x}`;
 const path=l=>l.map((p,k)=>k?leg(l[k-1],p):`M${p.x} ${p.y}`).join('');
 $('trail').setAttribute('d',path(pts));$('gone').setAttribute('d',path(S.slice(0,from)));
 $('trail').classList.toggle('back',s.back);
 document.querySelectorAll('.here').forEach(e=>e.classList.remove('here'));
 document.querySelectorAll('svg [data-netns]').forEach(e=>{if(e.dataset.netns===s.netns)e.classList.add('here')});
 const now=$('now');now.replaceChildren();
 const add=(tag,text,cls)=>{if(!text)return;
  const e=document.createElement(tag);e.textContent=text;if(cls)e.className=cls;now.append(e)};
 add('h2',s.title,s.tone);add('div',s.packet);add('div',s.text);add('pre',s.rule);
 add('div',s.owner&&('made for '+s.owner),'owner');
 add('div',s.rests&&('Rests on: '+s.rests),'rests soft');
 items.forEach((e,k)=>{if(k===i){
  e.setAttribute('aria-current','step');e.scrollIntoView({block:'nearest'})}else e.removeAttribute('aria-current')});
 $('at').value=i;$('count').textContent=(i+1)+' / '+S.length;document.body.dataset.step=i;}
function play(){if(timer){clearInterval(timer);timer=null;$('play').textContent='Play';return}
 if(i===S.length-1)show(0);$('play').textContent='Pause';timer=setInterval(()=>{if(i>=S.length-1)play();else show(i+1)},650)}
$('prev').onclick=()=>show(i-1);$('next').onclick=()=>show(i+1);$('play').onclick=play;$('at').oninput=e=>show(+e.target.value);
items.forEach((e,k)=>{e.onclick=()=>show(k);e.onkeydown=v=>{if(v.key==='Enter')show(k)}});
addEventListener('keydown',e=>{const t=e.target.tagName,k=e.key;
 if(k==='ArrowRight'||k==='ArrowDown'){if(t!=='INPUT'){show(i+1);e.preventDefault()}}
 else if(k==='ArrowLeft'||k==='ArrowUp'){if(t!=='INPUT'){show(i-1);e.preventDefault()}}
 else if(k==='Home')show(0);else if(k==='End')show(S.length-1);else if(k===' '&&t!=='BUTTON'){play();e.preventDefault()}});
const want=new URLSearchParams(location.hash.slice(1)).get('step');show(want?+want-1:0);
"""


def page(document: Mapping[str, Any], cluster: Cluster) -> str:
    """The whole page. `cluster` gives the drawing."""
    layout, title = _drawing(document, cluster)
    steps = _steps(document, layout)
    picture = graph_svg.document(
        layout, title, '<path id="gone" d=""/><path id="trail" d=""/>', '<g id="packet"><circle r="9"/></g>'
    )
    head = f"{escape(document['from'])} → {escape(document['to'])}"
    data = json.dumps([{key: value for key, value in step.items() if key != "line"} for step in steps]).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>{head}</title><style>{STYLE}</style></head>
<body><header><h1>{head}</h1>{_summary(document)}</header>
<main><div><figure>{picture}</figure>
<div class="controls"><button id="prev" aria-label="previous step">◀</button><button id="next" aria-label="next step">▶</button>
<button id="play">Play</button>
<input id="at" type="range" min="0" max="{len(steps) - 1}" value="0" aria-label="step">
<span id="count" class="soft"></span></div>
<div id="now" aria-live="polite"></div><p class="soft">Keys: ← → step, Home and End, space plays.</p></div>
<ol>{_list(steps)}</ol></main>
<section><dl>{_facts(document)}</dl></section>
<script type="application/json" id="steps">{data}</script><script>{SCRIPT}</script></body></html>
"""


def _drawing(document: Mapping[str, Any], cluster: Cluster) -> tuple[Layout, str]:
    met = frozenset(event["netns"] for event in (*document["hops"], *document["reply"]))
    picture = content.graph(cluster, always=met)
    if len(picture.nodes) > MANY_NODES:
        here = {node.netns for node in picture.nodes for pod in node.pods if pod.netns in met} | met
        picture = replace(picture, nodes=tuple(node for node in picture.nodes if node.netns in here))
    return graph_svg.draw(picture, services=False), picture.title


def _summary(document: Mapping[str, Any]) -> str:
    tone = {"delivered": "good"}.get(document["outcome"], "bad")
    verdict = {"pass": "good", "fail": "bad"}.get(document["verdict"], "warn")
    words = f"proxy {variant_of(document)}"
    if document["arrived_at"]:
        words += f" · at {document['arrived_at']}"
    if choice := document["choice"]:
        words += f" · one of {choice['backends']}, {choice['how']}, odds {choice['odds']}"
    agrees = "offline trace agrees" if document["trace_agrees"] else "offline trace disagrees"
    return (
        f'<span class="pill {tone}">{document["outcome"]}</span><span class="pill {verdict}">{document["verdict"]}</span>'
        f'<span class="soft">{escape(words)} · {agrees}</span>'
    )


def _facts(document: Mapping[str, Any]) -> str:
    rows = [("Why", line) for line in document["why"]] + [("To live", line) for line in document["remedies"]]
    rows += [("Disagreement", line) for line in document["disagreements"]] + [("Note", line) for line in document["notes"]]
    rows += [("Carried", line) for line in carried(document)]
    rows += [(f"Conntrack {netns}", conntrack(row)) for netns, found in document["conntrack"].items() for row in found]
    return "".join(f"<dt>{escape(name)}</dt><dd>{escape(line)}</dd>" for name, line in rows)


# ---------------------------------------------------------------- steps

TONES = {"delivered": "good", "relayed": "good", "dropped": "bad", "rejected": "bad", "nat": "warn"}


def _steps(document: Mapping[str, Any], layout: Layout) -> list[dict[str, Any]]:
    first = next((event["at"] for event in document["hops"] if event["at"]), 0)
    steps = []
    for events, back in ((document["hops"], False), (document["reply"], True)):
        for event in events:
            if event["event"] == "rule" and not event.get("decisive"):
                continue
            x, y = _point(event, layout)
            steps.append(
                {
                    "x": round(x), "y": round(y), "pod": event["netns"].startswith("pod/"), "netns": event["netns"],
                    "back": back, "tone": TONES.get(event["event"], ""),
                    "title": f"{event['netns']}: {_title(event)}", "line": _title(event), "text": event["text"],
                    "packet": shown(event["packet"]), "rule": event["rule"] or "", "owner": event["owner"] or "",
                    "rests": "; ".join(event["evidence"]), "us": max(0, (event["at"] - first) // 1000) if event["at"] else 0,
                }
            )  # fmt: skip
    return steps


def _title(event: Mapping[str, Any]) -> str:
    match event["event"]:
        case "sent" | "received":
            return f"{event['device']} {'out' if event['event'] == 'sent' else 'in'}"
        case "rule":
            number = f" #{event['position'] + 1}" if event["position"] is not None else ""
            return f"{event['hook']} · {event['chain']}{number}: {event['did'] or event['verdict']}"
        case "delivered":
            return "taken by its stack"
        case "dropped" | "rejected":
            return str(event["event"])
        case _:
            return str(event["text"])


def _list(steps: Sequence[Mapping[str, Any]]) -> str:
    rows: list[str] = []
    last: tuple[str, bool] | None = None
    for number, step in enumerate(steps):
        if last != (step["netns"], step["back"]):
            last = step["netns"], step["back"]
            rows.append(f'<li class="place">{"↩ " if step["back"] else ""}{escape(step["netns"])}</li>')
        rows.append(
            f'<li data-step="{number}" tabindex="0"><time>{step["us"]} µs</time>'
            f'<span class="{step["tone"]}">{escape(step["line"])}</span></li>'
        )
    return "".join(rows)


def _point(event: Mapping[str, Any], layout: Layout) -> tuple[float, float]:
    """Where on the drawing it happens: at a node's uplink or bridge, at a pod, on the LAN below or above a machine."""
    netns, device = event["netns"], event["device"]
    spot = layout.places.get(netns)
    if spot is None:
        return PAD, PAD
    if netns.startswith("lan/"):
        for kind in ("node", "host", "router"):
            for name, other in layout.places.items():
                if name.startswith(kind + "/") and device.endswith("-" + name.partition("/")[2]):
                    return (other.x + 22 if kind == "node" else other.centre[0]), spot.centre[1]
        return spot.centre
    if netns.startswith("node/"):
        if event["event"] in ("sent", "received") and device.startswith("eth"):
            return spot.x + 22, spot.y
        if event["event"] in ("sent", "received"):
            return spot.centre[0], spot.y + 48
        return spot.x + spot.w * 0.72, spot.y + 26
    if netns.startswith("pod/"):
        return spot.x + spot.w * 0.66, spot.y + spot.h * 0.7
    return spot.centre[0], spot.y + spot.h - 5


PAD = 20.0
