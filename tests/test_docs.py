"""Every command in the README and the docs is run: each page in order, in a directory and with labs of its own.

A ```console block holds `$ netlab ...` lines (or `$ pytest ...`) and what they print, and nothing of a shell but `> FILE` at the
end. A line that ends in `# exit N` is meant to fail with that code. A ```python or ```yaml block that begins with `# NAME.py` or
`# NAME.yaml` is a file: it is there when the page's commands are run.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from netlab.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
EXIT = re.compile(r"\s+# exit (\d+)$")
FILE = re.compile(r"^```(?:python|yaml)\n# ([\w-]+\.(?:py|yaml))\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


class Command(NamedTuple):
    words: list[str]
    code: int


def commands(page: Path) -> list[Command]:
    """The `$` lines of the page's console blocks."""
    found = []
    for block in BLOCK.findall(page.read_text()):
        for line in block.splitlines():
            if line.startswith("$ "):
                code = EXIT.search(line)
                found.append(Command(shlex.split(EXIT.sub("", line[2:])), int(code[1]) if code else 0))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_are_in_order(page: Path) -> None:
    for command in commands(page):
        assert command.words[0] in ("netlab", "pytest"), f"{command}: only netlab's own commands and tests are run"
        assert command.words[0] == "pytest" or command.words[1] in app.VERBS
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_verb_is_shown_on_some_page() -> None:
    shown = " ".join(page.read_text() for page in PAGES)
    assert [verb for verb in app.VERBS if f"netlab {verb}" not in shown] == []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that looks like the checkout, and a private place for labs."""
    for name in ("manifests", "topologies", "scenarios"):
        (tmp_path / name).symlink_to(ROOT / name)
    run = tmp_path / "run"
    run.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run))
    monkeypatch.delenv("NETLAB_LAB", raising=False)
    return tmp_path


def netlab(words: list[str], place: Path, module: str = "netlab") -> "subprocess.CompletedProcess[str]":
    words, file = (words[:-2], words[-1]) if words[-2:-1] == [">"] else (words, "")
    command = [sys.executable, "-m", module, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=place, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
    )
    if file:
        (place / file).write_text(done.stdout)
    return done


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_the_commands_of_a_page_do_what_it_says(page: Path, place: Path, request: pytest.FixtureRequest) -> None:
    doctor = netlab(["doctor"], place)
    if doctor.returncode == 3 and not request.config.getoption("--netlab-require", default=False):
        pytest.skip(f"this machine cannot run labs: {doctor.stdout}")
    if page.stem == "ingress" and not shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        pytest.skip("haproxy is not installed: it is for labs that ask for it")
    if page.stem in ("routing", "load-balancer") and not shutil.which("bird", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        pytest.skip("bird is not installed: it is for labs that ask for it")
    for name, text in FILE.findall(page.read_text()):
        (place / name).write_text(text)
    try:
        for command in commands(page):
            done = netlab(command.words[1:], place, command.words[0])
            assert done.returncode == command.code, f"$ {shlex.join(command.words)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    finally:
        netlab(["down", "--all"], place)
