"""`python -m tests.pictures`: the pictures of docs/images, taken from real labs by a headless browser. `make pictures`.

What they show is looked at by a person before it is committed; that pages hold what they must is tests/live/test_pages_live.py's.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests import manifests
from tests.browser import Page, browser

IMAGES = Path("docs/images")
CLIENT = "{apiVersion: v1, kind: Pod, metadata: {name: client}, spec: {containers: [{name: c, image: curl}]}}"
TEN_NODES = "{apiVersion: netlab/v1, kind: Topology, name: ten-nodes, nodes: 10, cluster: {fabric: routed}}"
BROKEN = """
apiVersion: netlab/v1
kind: Scenario
name: broken-on-purpose
topology: {topology}
manifests: [{manifest}]
steps:
- probe: {{from: pod/client, to: svc/kubia, count: 300}}
- probe: {{from: host/client, to: "192.168.0.170:30123", count: 60, expect: {{masqueraded: false}}}}
- probe: {{from: host/client, to: "192.168.0.170:30999", count: 1, expect: {{outcome: delivered}}}}
- matrix: {{}}
"""


def netlab(*words: str) -> str:
    """One command of netlab; what it printed."""
    return subprocess.run([sys.executable, "-m", "netlab", *words], stdout=subprocess.PIPE, text=True, check=False).stdout


def two_nodes(page: Page, work: Path) -> None:
    lab = netlab("up", "topologies/two-node.yaml", "-f", "manifests/kubia.yaml", "--name", f"pictures-{work.name}").split()[0]
    try:
        story = work / "story.html"
        story.write_text(netlab("explain", "host/client", "192.168.0.170:30123", "-o", "html", "--lab", lab))
        steps = story.read_text().count('class="hop') or 40
        for name, dark, step in (("explain", False, steps - 5), ("explain-dark", True, 12)):
            page.open(story, 1240, 760, dark)
            page.value(f"show({step})")
            page.picture(IMAGES / f"{name}.png")
        (IMAGES / "graph.svg").write_text(netlab("graph", "-o", "svg", "--lab", lab))
        report = work / "report.html"
        netlab("report", "-o", str(report), "--lab", lab)
        page.open(report, 1200, 1290, dark=True)
        page.picture(IMAGES / "report-dark.png")
    finally:
        netlab("down", lab)


def many(page: Page, work: Path) -> None:
    (work / "ten.yaml").write_text(TEN_NODES)
    services = (("web", 200, "Cluster", 30080), ("api", 99, "Local", 30081))
    many = [
        one
        for name, count, policy, port in services
        for one in manifests.web(name, count, externalTrafficPolicy=policy, ports=[{"port": 80, "nodePort": port}])
    ]
    (work / "many.yaml").write_text(f"{CLIENT}\n---\n{yaml.safe_dump_all(many)}")
    lab = netlab("up", str(work / "ten.yaml"), "-f", str(work / "many.yaml"), "--name", f"many-{work.name}").split()[0]
    try:
        (work / "graph.html").write_text(netlab("graph", "-o", "html", "--lab", lab))
        page.open(work / "graph.html", 1200, 800)
        page.picture(IMAGES / "graph-many.png", whole=True)
    finally:
        netlab("down", lab)


def failures(page: Page, work: Path) -> None:
    scenario = work / "bad.yaml"
    scenario.write_text(
        BROKEN.format(topology=Path("topologies/two-node.yaml").resolve(), manifest=Path("manifests/kubia.yaml").resolve())
    )
    netlab("run", str(scenario), "--proxy", "nftables", "--html", str(work / "run.html"))
    page.open(work / "run.html", 1240, 1000)
    page.picture(IMAGES / "run.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="netlab-") as folder, browser(Path(folder) / "profile") as page:
        for one in (two_nodes, many, failures):
            one(page, Path(folder))
            print(one.__name__, "done", file=sys.stderr)
