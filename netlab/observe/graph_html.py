"""The lab's graph as one self-contained page: the SVG, scaled to the window, and a filter. No request leaves the page."""

from html import escape

from netlab.observe import graph_svg
from netlab.observe.graph import Graph
from netlab.observe.page import POLICY

SCRIPT = """
const q=document.getElementById('q');
q.addEventListener('input',()=>{const w=q.value.trim().toLowerCase();
 for(const r of document.querySelectorAll("svg [data-netns]"))
  r.style.opacity=!w||r.dataset.netns.toLowerCase().includes(w)?1:.25;});
"""


def page(graph: Graph) -> str:
    """The whole page."""
    picture = graph_svg.svg(graph)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>{escape(graph.title)}</title>
<style>:root{{color-scheme:light dark}}body{{margin:0;font:14px system-ui,sans-serif;background:Canvas;color:CanvasText}}
header{{padding:10px 14px}}input{{font:inherit;padding:4px 8px;width:20em;max-width:90%}}
svg{{width:100%;height:auto;max-width:1600px}}</style></head>
<body><header><label>Find <input id="q" placeholder="pod, node, host, Service" autofocus></label></header>
{picture}<script>{SCRIPT}</script></body></html>
"""
