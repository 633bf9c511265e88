"""logs: what the programs of a pod, or a daemon, printed."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli import output
from netlab.cli.output import LabOption, NamespaceOption

if TYPE_CHECKING:
    from netlab.client import Lab

WAIT_S = 30.0
"""How long the lab holds one question for more; then it is asked again."""


def logs(
    pod: Annotated[
        str,
        typer.Argument(
            metavar="POD|MACHINE", help="A pod's name, pod/NAME, or a workload: its first pod; node/NAME, router/router."
        ),
    ],
    daemon: Annotated[str | None, typer.Argument(metavar="[DAEMON]", help="A daemon of the machine: bird.")] = None,
    container: Annotated[str | None, typer.Option("-c", "--container", metavar="CONTAINER")] = None,
    previous: Annotated[bool, typer.Option("-p", "--previous", help="What the run before the last restart printed.")] = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the container has ended, or Ctrl-C.")] = False,
    tail: Annotated[int, typer.Option("--tail", min=-1, metavar="LINES", help="Only the last lines; -1 for all.")] = -1,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> None:
    """What the program of a pod printed, or a daemon of a machine.

    \b
    Examples:
      netlab logs client
      netlab logs deploy/looping --tail 20 -f
      netlab logs web -c init
      netlab logs web --previous
      netlab logs node/node-170 bird
    """
    target = pod if "/" in pod else f"pod/{pod}"
    running = output.attach(lab)
    container = container or daemon
    found = running.verb("logs", pod=target, namespace=namespace, container=container, previous=previous)
    text = last_lines(found["text"], tail)
    sys.stdout.write(text)
    sys.stdout.flush()
    if follow and not previous:
        _follow(running, target, namespace, container, found)
    elif not text and tail != 0:
        output.message(f"{target} has printed nothing" + (f" ({found['note']})" if found["note"] else ""))


def last_lines(text: str, count: int) -> str:
    """The last `count` lines of the text; all of them where it is negative."""
    if count < 0:
        return text
    return "".join(text.splitlines(keepends=True)[-count:] if count else ())


def _follow(running: "Lab", target: str, namespace: str, container: str | None, found: dict[str, object]) -> None:
    while not found["ended"] or found["text"]:
        found = running.verb(
            "logs", pod=target, namespace=namespace, container=container, offset=found["offset"], run=found["run"], wait_s=WAIT_S
        )
        sys.stdout.write(str(found["text"]))
        sys.stdout.flush()
