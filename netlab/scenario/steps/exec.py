"""exec: run a program in a pod, node or host, and compare what it prints and returns. Without `expect` it has to return 0."""

import re
import subprocess
from collections.abc import Mapping
from typing import Any

from netlab.manifest.formats import seconds
from netlab.scenario.values import Context, Lab, StepResult, judged

Arguments = Mapping[str, Any]
TIMEOUT_S = 30.0
SHOWN = 300


def title(arguments: Arguments) -> str:
    words = " ".join(arguments["command"])
    return f"{arguments['target']}: {words if len(words) <= 60 else words[:57] + '...'}"


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    timeout_s = seconds(arguments["timeout"]) if "timeout" in arguments else TIMEOUT_S
    namespace = arguments.get("namespace", context.namespace)
    try:
        done = lab.exec(
            arguments["target"],
            arguments["command"],
            container=arguments.get("container"),
            timeout_s=timeout_s,
            namespace=namespace,
        )
    except subprocess.TimeoutExpired:
        return judged((f"the program did not end within {timeout_s:g} s",), "timed out")
    details = {"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    return judged(unmet(done, arguments.get("expect") or {}), f"exit code {done.returncode}", details)


def unmet(done: "subprocess.CompletedProcess[str]", expect: Mapping[str, Any]) -> list[str]:
    """What of `expect` did not hold, one sentence each."""
    found = []
    code = expect.get("code", 0)
    if done.returncode != code:
        said = f"; it said: {_short(done.stderr)}" if done.stderr.strip() else ""
        found.append(f"the exit code is {done.returncode}, expected {code}{said}")
    for stream in ("stdout", "stderr"):
        wanted = expect.get(stream)
        text = getattr(done, stream)
        if wanted is not None and not _holds(text, wanted):
            found.append(f"{stream} has no {wanted!r}; it is: {_short(text) or '(empty)'}")
    return found


def _holds(text: str, wanted: str) -> bool:
    """`/.../` is a regular expression, everything else has to be there as it stands; '' means that there is nothing."""
    if not wanted:
        return not text.strip()
    if len(wanted) > 2 and wanted[0] == wanted[-1] == "/":
        return re.search(wanted[1:-1], text, re.MULTILINE) is not None
    return wanted in text


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
