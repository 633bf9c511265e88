"""What is kept of a lab whose test failed: its plan, and the packets of the probe that failed, sent once more under a capture.

Decides nothing about verdicts: a probe is repeated here to be looked at, never to be judged again.
"""

from collections.abc import Callable
from pathlib import Path

from netlab.client import Lab
from netlab.recorder import recording
from netlab.scenario.values import Lab as AnyLab


def save_plan(lab: Lab, path: Path) -> Path:
    """Write the lab's plan as `netlab plan` prints it."""
    from netlab import plan

    path.write_text(plan.text(lab.plan()))
    return path


def capture(lab: AnyLab, replay: Callable[[], object], path: Path) -> Path:
    """Record the whole lab into a pcapng file while `replay` runs. Raises: NetlabError when nothing could be recorded."""
    with recording(lab.name, path):
        replay()
    return path
