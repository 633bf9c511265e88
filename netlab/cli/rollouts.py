"""rollout: kubectl's verbs for the rollout of a Deployment, DaemonSet or StatefulSet, with kubectl's words and exit codes."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from netlab.cli import output
from netlab.cli.objects import identity, named
from netlab.cli.output import LabOption, NamespaceOption
from netlab.errors import InputError
from netlab.numerals import natural

app = typer.Typer(help="Follow, repeat, undo or hold back a rollout.", no_args_is_help=True, rich_markup_mode=None)

TargetArgument = Annotated[
    list[str], typer.Argument(metavar="KIND/NAME", help="deploy/NAME, ds/NAME, sts/NAME; or a kind and names.")
]
RevisionOption = Annotated[int, typer.Option("--to-revision", min=0, metavar="N", help="Which one; 0: the one before.")]
ShownOption = Annotated[int | None, typer.Option("--revision", min=0, metavar="N", help="Show the template of this one.")]
TimeoutOption = Annotated[str, typer.Option("--timeout", metavar="DURATION", help="Give up then: 30s, 2m; 0s: never.")]
FAILED = 1


@app.command("status")
def status(
    what: TargetArgument,
    timeout: TimeoutOption = "0s",
    watch: Annotated[bool, typer.Option("--watch/--no-watch", "-w", help="Wait for its end.")] = True,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> int:
    """Say how a rollout goes until it is done. Exit code 1 when it fails (its progress deadline) or the timeout is over.

    \b
    Examples:
      netlab rollout status deploy/web
      netlab rollout status sts/db --timeout 30s
      netlab rollout status ds/agent --no-watch
    """
    limit = duration(timeout)
    running = output.attach(lab)
    for target in targets(what):
        try:
            for told in running.rollout.messages(target, limit or None, namespace):
                print(told["message"], file=sys.stderr if told["failed"] else sys.stdout, flush=True)
                if told["failed"]:
                    return FAILED
                if not watch:
                    break
        except TimeoutError:
            print("error: timed out waiting for the condition", file=sys.stderr)
            return FAILED
    return 0


def duration(text: str) -> float:
    """Seconds of `30s`, `2m`, `1m30s`, `0`. Raises InputError."""
    from netlab.manifest.formats import duration as check
    from netlab.manifest.formats import seconds

    if (whole := natural(text)) is not None:
        return float(whole)
    if error := check(text):
        raise InputError(f"--timeout {text!r}: {error}")
    return seconds(text)


def targets(what: Sequence[str]) -> list[str]:
    return [f"{kind}/{name}" for kind, name in named(what)]


def shown(target: str) -> str:
    kind, _, name = target.partition("/")
    return f"{identity(kind)}/{name}"


@app.command("restart")
def restart(what: TargetArgument, namespace: NamespaceOption = "default", lab: LabOption = None) -> None:
    """Make all its pods anew, by its own strategy.

    \b
    Examples:
      netlab rollout restart deploy/web
    """
    running = output.attach(lab)
    for target in targets(what):
        running.rollout.restart(target, namespace)
        print(f"{shown(target)} restarted")


@app.command("undo")
def undo(
    what: TargetArgument, revision: RevisionOption = 0, namespace: NamespaceOption = "default", lab: LabOption = None
) -> None:
    """Go back to an earlier revision.

    \b
    Examples:
      netlab rollout undo deploy/web
      netlab rollout undo deploy/web --to-revision 1
    """
    running = output.attach(lab)
    for target in targets(what):
        print(f"{shown(target)} {running.rollout.undo(target, revision, namespace)}")


@app.command("pause")
def pause(what: TargetArgument, namespace: NamespaceOption = "default", lab: LabOption = None) -> None:
    """Hold a Deployment's rollout back: a new template does nothing until it is resumed.

    \b
    Examples:
      netlab rollout pause deploy/web
    """
    running = output.attach(lab)
    for target in targets(what):
        running.rollout.pause(target, namespace)
        print(f"{shown(target)} paused")


@app.command("resume")
def resume(what: TargetArgument, namespace: NamespaceOption = "default", lab: LabOption = None) -> None:
    """Go on with a paused Deployment's rollout.

    \b
    Examples:
      netlab rollout resume deploy/web
    """
    running = output.attach(lab)
    for target in targets(what):
        running.rollout.resume(target, namespace)
        print(f"{shown(target)} resumed")


@app.command("history")
def history(
    what: TargetArgument, revision: ShownOption = None, namespace: NamespaceOption = "default", lab: LabOption = None
) -> None:
    """Show the revisions that are kept, or the template of one.

    \b
    Examples:
      netlab rollout history deploy/web
      netlab rollout history sts/db --revision 2
    """
    from netlab.cli import describe, tables

    running = output.attach(lab)
    for target in targets(what):
        past = running.rollout.history(target, namespace)
        if revision:
            one = next((one for one in past if one["revision"] == revision), None)
            if one is None:
                raise InputError(f"unable to find the specified revision {revision} in history")
            template = {
                **one["template"],
                "metadata": {**one["template"].get("metadata", {}), "labels": one["template"]["labels"]},
            }
            print(f"{shown(target)} with revision #{revision}")
            print(describe.columns([*describe.template(template)]), end="")
        else:
            print(f"{shown(target)} ")
            rows = [[str(one["revision"]), one["changeCause"] or tables.NONE] for one in past]
            print(tables.align([["REVISION", "CHANGE-CAUSE"], *rows]), end="")
        print()
