"""netlab's pages in a real browser: stepped through, silent on the console, fetching nothing, in two colour schemes."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import netlab
from netlab import controllers
from netlab.client import Lab
from netlab.errors import MachineError
from netlab.lab.inputs import read_inputs
from netlab.observe import graph, graph_html
from tests import manifests
from tests.browser import CHROMIUM, Page, browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
TOPOLOGY = "topologies/two-node.yaml"
MANIFESTS = ["manifests/kubia.yaml", "manifests/no-endpoints.yaml"]
SCENARIO = """
apiVersion: netlab/v1
kind: Scenario
name: broken-on-purpose
topology: {root}/topologies/two-node.yaml
manifests: [{root}/manifests/kubia.yaml]
proxy: [iptables, nftables]
steps:
- probe: {{from: pod/client, to: svc/kubia, count: 60}}
- probe: {{from: host/client, to: "192.168.0.170:30123", count: 30, expect: {{masqueraded: false}}}}
- exec: {{target: pod/client, command: [echo, hello], expect: {{stdout: goodbye}}}}
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    try:
        with netlab.up(TOPOLOGY, MANIFESTS, proxy="nftables") as running:
            yield running
    except MachineError as error:
        pytest.skip(f"this machine cannot run a lab: {error}")


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("chromium")) as page:
        yield page


def run(*words: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, "-m", "netlab", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr[-2000:] + done.stdout[-2000:]
    return done.stdout


def background(tab: Page) -> list[int]:
    colour: str = tab.value("getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]


def keeps_to_itself(tab: Page, path: Path) -> None:
    """Nothing on the console, nothing fetched, fetching refused, readable in both schemes, no wider than the window."""
    assert tab.console == [] and tab.requests == [path.as_uri()]
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")
    light = background(tab)
    tab.scheme(dark=True)
    dark = background(tab)
    tab.scheme(dark=False)
    assert min(light) > 200 and max(dark) < 60
    assert tab.value("fetch('http://192.0.2.1/').then(()=>'came',()=>'refused')") == "refused"
    assert (
        tab.value("new Promise(r=>{const i=new Image();i.onload=()=>r('came');i.onerror=()=>r('no');i.src='file:///x.png'})")
        == "no"
    )


def test_a_story_is_stepped_through_with_keys_mouse_and_slider(lab: Lab, tab: Page, tmp_path: Path) -> None:
    path = tmp_path / "story.html"
    path.write_text(run("--lab", lab.name, "explain", "host/client", "192.168.0.170:30123", "-o", "html"))
    tab.open(path)
    last = int(tab.value("document.querySelectorAll('li[data-step]').length")) - 1
    assert last > 10

    def step() -> int:
        return int(tab.value("document.body.dataset.step"))

    seen = [step()]
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "End", "ArrowRight", "Home", "ArrowDown"):
        tab.press(key)
        seen.append(step())
    assert seen == [0, 1, 2, 1, last, last, 0, 1]
    tab.click("#next")
    assert step() == 2
    tab.click(f"li[data-step='{last}']")
    assert step() == last and tab.value("document.querySelectorAll('li[aria-current]').length") == 1
    tab.value("document.getElementById('at').focus()")
    tab.press("Home")
    assert step() == 0
    places = set()
    for _ in range(last):
        tab.click("#next")
        places.add(tab.value("document.getElementById('packet').style.transform"))
    assert step() == last and len(places) > 5
    assert tab.value("document.getElementById('now').textContent").strip()
    keeps_to_itself(tab, path)
    assert tab.value("document.querySelectorAll('.here').length") >= 1


def test_a_drawing_is_searched(lab: Lab, tab: Page, tmp_path: Path) -> None:
    path = tmp_path / "graph.html"
    path.write_text(run("--lab", lab.name, "graph", "-o", "html"))
    tab.open(path)
    faded = "[...document.querySelectorAll('svg [data-netns]')].filter(e=>e.style.opacity=='0.25').length"
    assert tab.value(faded) == 0
    tab.value("(()=>{const q=document.getElementById('q');q.value='client';q.dispatchEvent(new Event('input'))})()")
    all_of_them = tab.value("document.querySelectorAll('svg [data-netns]').length")
    assert 0 < int(tab.value(faded)) < int(all_of_them)
    keeps_to_itself(tab, path)


OVER = """
(() => {
  const found = [], box = e => e.getBoundingClientRect(), words = [...document.querySelectorAll('svg text')];
  const pods = [...document.querySelectorAll('svg rect.pod, svg rect.node, svg rect.box')].map(box);
  const tags = [...document.querySelectorAll('svg circle')].map(box);
  const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top + 3 || b.bottom <= a.top + 3;
  const middle = a => [(a.left + Math.min(a.right, a.left + 8)) / 2, (a.top + a.bottom) / 2];
  words.forEach((word, number) => {
    const mine = box(word), [x, y] = middle(mine), mark = word.classList.contains('tag');
    for (const other of words.slice(number + 1))
      if (!mark && !other.classList.contains('tag') && !apart(mine, box(other)))
        found.push(word.textContent + ' | ' + other.textContent);
    for (const tag of tags) if (!mark && !apart(mine, tag)) found.push(word.textContent + ' | a letter');
    for (const pod of pods)
      if (pod.left <= x && x <= pod.right && pod.top <= y && y <= pod.bottom && mine.right > pod.right)
        found.push(word.textContent + ' leaves its box');
  });
  return found;
})()
"""
"""Words that lie on others, on a Service's letter, or reach out of their box."""


@pytest.mark.parametrize("pods", [3, 30, 300])
@pytest.mark.parametrize("topology", ["dual-stack", "two-node"])
def test_no_words_of_a_drawing_lie_on_others(topology: str, pods: int, tab: Page, tmp_path: Path) -> None:
    long = "checkout-recommendation-service-canary"
    manifest, picture = tmp_path / "many.yaml", tmp_path / "graph.html"
    both = {"ipFamilyPolicy": "PreferDualStack", "ports": [{"name": "a", "port": 80}, {"name": "b", "port": 9100}]}
    named = (("web", "default"), (long, "payments-production"), ("mmm-wwwwwwwwwwww", "default"))
    objects_ = [one for name, namespace in named for one in manifests.web(name, pods // 3, namespace, **both)]
    manifest.write_text(yaml.safe_dump_all(objects_))
    topology_, objects, _ = read_inputs(f"topologies/{topology}.yaml", [str(manifest)])
    cluster = controllers.initial(topology_, objects)
    for collapse in (16, 1000):
        picture.write_text(graph_html.page(graph.graph(cluster, collapse)))
        tab.open(picture)
        assert tab.value(OVER) == []


def test_a_report_shows_the_lab(lab: Lab, tab: Page, tmp_path: Path) -> None:
    path = tmp_path / "lab.html"
    run("--lab", lab.name, "report", "-o", str(path))
    tab.open(path)
    words = tab.value("document.body.innerText")
    assert "no drift" in words and "kubia" in words and "as Kubernetes" not in words
    assert int(tab.value("document.querySelectorAll('table.grid td').length")) > 20
    assert tab.value("document.querySelectorAll('table.grid td.f, table.grid td.i').length") == 0
    keeps_to_itself(tab, path)


def test_a_report_of_a_broken_lab_says_so(tmp_path: Path) -> None:
    with netlab.up(TOPOLOGY, ["manifests/kubia.yaml"], proxy="nftables") as lab:
        lab.exec("node/node-171", ["nft", "flush", "chain", "ip", "kube-proxy", "services"], check=True)
        path = tmp_path / "lab.html"
        run("--lab", lab.name, "report", "-o", str(path), code=1)
        text = path.read_text()
        assert "differences" in text and 'class="f"' in text


def test_a_run_with_failures_can_be_read_and_stepped_through(tab: Page, tmp_path: Path) -> None:
    scenario, path = tmp_path / "broken.yaml", tmp_path / "run.html"
    scenario.write_text(SCENARIO.format(root=Path.cwd()))
    junit, packets = tmp_path / "run.xml", tmp_path / "packets"
    run("run", str(scenario), "--html", str(path), "--junit", str(junit), "--pcap", str(packets), code=1)
    tab.open(path)
    words = tab.value("document.body.innerText")
    assert "2 pass" in words and "4 fail" in words and "in every mode" in words and "goodbye" in words
    assert tab.value("document.querySelectorAll('svg.plot .band').length") == 2 * 2 * 3, "two probes of two modes, three backends"
    tab.click("details details summary")
    tab.value("new Promise(r=>{const f=document.querySelector('iframe');f.scrollIntoView();const t=setInterval(()=>{"
              "const d=f.contentDocument;if(d&&d.body&&d.body.dataset.step){clearInterval(t);r()}},20)})")  # fmt: skip
    inside = "document.querySelector('iframe').contentDocument"
    tab.value(f"{inside}.getElementById('next').click()")
    assert tab.value(f"{inside}.body.dataset.step") == "1"
    assert [one for one in tab.requests if not one.startswith(("file:", "about:"))] == [] and tab.console == []
    tab.requests = [path.as_uri()]
    keeps_to_itself(tab, path)
    assert sorted(one.name for one in packets.iterdir()) == sorted(
        f"broken-on-purpose-{mode}-{number}.pcapng" for mode in ("iptables", "nftables") for number in ("02-probe", "03-exec")
    )
    told = junit.read_text()
    assert told.count("<failure") == 4 and told.count("[[ATTACHMENT|") == 4
    assert told.count("host/client -&gt; 192.168.0.170:30123/tcp  (iptables)") == 1, "the story of the flow that failed"


def test_without_a_terminal_a_failure_leaves_the_lab_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "run"
    place.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    scenario = tmp_path / "broken.yaml"
    scenario.write_text(SCENARIO.format(root=Path.cwd()))
    command = [sys.executable, "-m", "netlab", "run", str(scenario), "--pause-on-fail"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    try:
        assert done.returncode == 1 and "is left up" in done.stderr and "exec" not in done.stdout, done.stderr
        name = done.stderr.rpartition("netlab down ")[2].split("`")[0]
        assert "kubia" in run("--lab", name, "get", "svc")
    finally:
        run("down", "--all")
    assert run("ls", "-o", "json").strip() == "[]"
