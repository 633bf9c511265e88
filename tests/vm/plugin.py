"""Tests that need what this machine's kernel may lack: run here where it has it, otherwise in the test VM (`--vm`).

Decides where a test runs. Its result is an ordinary one either way: the VM's reports are this session's reports. A test says
what it needs with `@pytest.mark.needs_ip_vs` or another marker of FEATURES; scenarios and labs in mode ipvs need ip_vs by
themselves. Without `--vm` and without the feature they are skipped; with it, only such tests are run.
"""

import json
import os
import subprocess
import sys
from functools import cache
from typing import Any

import pytest

from tools.vm import machine
from tools.vm.image import Unable, image

FEATURES = {"needs_ip_vs": "IPVS", "needs_netem": "qdisc netem", "needs_br_netfilter": "br_netfilter"}
"""Marker -> the line of `netlab doctor` that says whether this kernel has it."""
WORDS = {"IPVS": "ip_vs", "qdisc netem": "netem", "br_netfilter": "br_netfilter"}
TIMEOUT_S, TOLD_S, STILL_S = 1500.0, 240, 420.0
"""On two cores without KVM, for everything that is run in the VM; NETLAB_VM_TIMEOUT says another.

TOLD_S: after so long a test says where it is. STILL_S: an emulated machine that tells nothing for so long stands still, as was
seen twice with both processors idle. What it has not told of is asked of another one, once.
"""
RAN = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("netlab").addoption(
        "--vm",
        action="store_true",
        help="Run only tests that need what few kernels have; in the test VM where this one lacks it.",
    )


def pytest_configure(config: pytest.Config) -> None:
    for marker, check in FEATURES.items():
        config.addinivalue_line("markers", f"{marker}: needs a kernel with {WORDS[check]}; `make test-vm` has one")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "ipvs" in _modes(item):
            item.add_marker("needs_ip_vs")
    if config.getoption("--vm"):
        rest = [item for item in items if not _needs(item)]
        config.hook.pytest_deselected(items=rest)
        items[:] = [item for item in items if _needs(item)]
        return
    for item in items:
        if lacking := _lacking(item):
            item.add_marker(pytest.mark.skip(reason=f"this kernel has no {', '.join(lacking)}: `make test-vm` runs it"))


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Tests for the VM are run in one go, when the first of them is due."""
    if not item.config.getoption("--vm") or not _lacking(item):
        return None
    if RAN not in item.config.stash:
        item.config.stash[RAN] = True
        _run([one for one in item.session.items if _lacking(one)], item.config)
    return True


def _modes(item: pytest.Item) -> tuple[object, ...]:
    """The proxy modes that a test's parameters or a scenario's name say."""
    callspec = getattr(item, "callspec", None)
    return (getattr(item, "mode", ""), callspec.params.get("netlab_proxy") if callspec is not None else "")


def _needs(item: pytest.Item) -> list[str]:
    return [check for marker, check in FEATURES.items() if item.get_closest_marker(marker) is not None]


def _lacking(item: pytest.Item) -> list[str]:
    needed = _needs(item)
    return [WORDS[check] for check in needed if check not in present()] if needed else []


@cache
def present() -> frozenset[str]:
    """Of FEATURES, what this kernel has; tried in namespaces of a process of its own."""
    done = subprocess.run([sys.executable, "-m", "netlab.kernel.features"], capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return frozenset(row["name"] for row in rows if row["ok"]) & frozenset(FEATURES.values())


# ---------------------------------------------------------------- in the VM


class _Session:
    """The VM's words: reports become reports of this session, the rest is kept for those that never came."""

    def __init__(self, items: list[pytest.Item], config: pytest.Config) -> None:
        self.config = config
        self.waiting = {item.nodeid: item for item in items}
        self.output: list[str] = []

    def told(self, line: dict[str, Any]) -> None:
        if "say" not in line:
            self.output.append(str(line.get("out", line)))
            return
        report = self.config.hook.pytest_report_from_serializable(config=self.config, data=line["say"])
        if report.when == "setup":
            self.config.hook.pytest_runtest_logstart(nodeid=report.nodeid, location=tuple(report.location))
        self.config.hook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            self.config.hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=tuple(report.location))
            self.waiting.pop(report.nodeid, None)

    def finish(self, reason: str) -> None:
        """What the VM did not tell of has failed."""
        for item in self.waiting.values():
            text = "\n".join([f"the test VM did not run this test to its end: {reason}", *self.output[-60:]])
            self._report(item, "failed", text)

    def unable(self, reason: str) -> None:
        """This machine cannot run the VM: skipped, or failed with --netlab-require."""
        for item in self.waiting.values():
            if self.config.getoption("--netlab-require"):
                self._report(item, "failed", reason)
            else:
                path, line, _ = item.reportinfo()
                self._report(item, "skipped", (str(path), line or 0, f"Skipped: {reason}"))

    def _report(self, item: pytest.Item, outcome: Any, longrepr: Any) -> None:
        hook = item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        report = pytest.TestReport(item.nodeid, item.location, dict(item.keywords), outcome, longrepr, "call")
        hook.pytest_runtest_logreport(report=report)
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)


def _run(items: list[pytest.Item], config: pytest.Config) -> None:
    session = _Session(items, config)
    capture = config.pluginmanager.getplugin("capturemanager")
    timeout_s = float(os.environ.get("NETLAB_VM_TIMEOUT", TIMEOUT_S))
    with capture.global_and_fixture_disabled():  # what the image's build and the boot say is for people who wait
        try:
            try:
                code = machine.run(image(os.environ), _job(session), session.told, timeout_s, still_s=STILL_S)
            except machine.StoodStill as error:
                told = "\n".join(session.output[-60:])
                print(f"\n{error}\n{told}\nvm: {len(session.waiting)} tests are asked of another VM", flush=True)
                code = machine.run(image(os.environ), _job(session), session.told, timeout_s, still_s=STILL_S)
        except Unable as error:
            session.unable(str(error))
        except (TimeoutError, machine.Died) as error:
            session.finish(str(error))
        else:
            session.finish(f"pytest in the VM ended with {code}")


def _job(session: _Session) -> machine.Job:
    """The tests that the session has not heard of."""
    argv = ["python3", "-m", "pytest", "-q", "-n", "2", "--netlab-require", "-p", "tests.vm.guest"]
    argv += ["-o", f"faulthandler_timeout={TOLD_S}", *session.waiting]
    return machine.Job(tuple(argv), "root" if os.geteuid() == 0 else "tester")
