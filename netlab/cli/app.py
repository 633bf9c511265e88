"""Which verbs there are, where each one lives, and what becomes of its errors.

Only the module of the verb that was typed is imported, so that `netlab exec` does not pay for `netlab bench`. Verbs are plain
functions with typer's annotations; they return an exit code (None = 0) and raise netlab's errors, which are mapped here only.
"""

import difflib
import functools
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from netlab import __version__
from netlab.errors import NetlabError

VERBS: dict[str, str] = {
    "up": "lab",
    "apply": "objects",
    "delete": "objects",
    "get": "objects",
    "describe": "objects",
    "scale": "objects",
    "rollout": "rollouts",
    "cordon": "cordoning",
    "uncordon": "cordoning",
    "drain": "draining",
    "taint": "draining",
    "exec": "lab",
    "logs": "logs",
    "port-forward": "forwarding",
    "probe": "probing",
    "matrix": "probing",
    "explain": "explaining",
    "graph": "graphing",
    "report": "reporting",
    "events": "happenings",
    "top": "topping",
    "plan": "planning",
    "verify": "probing",
    "capture": "watching",
    "tcpdump": "watching",
    "fault": "faults",
    "run": "running",
    "ls": "lab",
    "down": "lab",
    "shell": "lab",
    "doctor": "machine",
    "demo": "demo",
    "bench": "bench",
    "schema": "planning",
    "completion": "machine",
}
"""Verb -> module of netlab.cli. The function has the verb's name, with an underscore where Python has taken it (`exec_`)."""

NOT_BUILT = frozenset({"kubeconfig"})
"""Verbs that are promised."""

GROUPS = frozenset({"fault", "bench", "rollout"})
"""Verbs with verbs of their own: their module has a typer app named `app`."""

HELP = """A Kubernetes network on one Linux machine: real manifests in, real packets through, a verdict out.

\b
Examples:
  netlab up -f manifests/kubia.yaml        build the default lab with these objects in it
  netlab get svc                           what kubectl would show
  netlab probe pod/client svc/kubia        send packets, watch where they land, judge
  netlab exec pod/client -- curl -s kubia  run any program of this machine inside a pod
  netlab down                              take it down; nothing is left behind

Start with `netlab up`. With one lab running, --lab is not needed."""

EPILOG = """\b
Exit codes: 0 done, every expectation held · 1 an expectation failed · 2 the input is wrong · 3 this machine cannot do it
            4 inconclusive: evidence is missing · 130 interrupted. `exec` returns the program's own code."""

COMPLETE = "_NETLAB_COMPLETE"
"""Set by the shell's completion script; typer answers it before any verb runs."""

PROGRAMS = frozenset({"exec", "shell"})
"""Verbs that return a program's own exit code."""

EXEC_FAILED = 125
"""What those return when netlab, not the program, has failed (as `docker run` and `env` do)."""

BUG = 4
"""An exception that nobody foresaw proves nothing: it must not look like an expectation that failed (1)."""

BROKEN_PIPE = 128 + signal.SIGPIPE
INTERRUPTED = 128 + signal.SIGINT


def main(argv: list[str], starting: Any = None) -> int:
    """Run one command line; returns its exit code. `starting` is what __main__ began before this module was imported."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # in a locale without them, bars and lines become question marks
            stream.reconfigure(errors="replace")
    try:
        verbs = wanted(argv)
    except NetlabError as error:
        report(error)
        return error.exit_code
    try:
        build(verbs)(args=argv, prog_name="netlab", obj=starting)
    except Finished as finished:
        return int(finished.code or 0)
    except SystemExit as usage:  # help, or a mistake that typer has found and shown
        if isinstance(usage.__context__, BrokenPipeError):
            return broken_pipe()
        try:
            sys.stdout.flush()
        except OSError as error:
            return failed(error, set(verbs) <= PROGRAMS)
        return EXEC_FAILED if usage.code and set(verbs) <= PROGRAMS else int(usage.code or 0)
    except MemoryError:  # so little is left that not even this could be told here
        raise
    except Exception as error:  # outside of the verb itself
        return failed(error, set(verbs) <= PROGRAMS)
    return 0


class Finished(SystemExit):
    """The verb has run; `code` is its exit code. (SystemExit passes through typer untouched.)"""


def wanted(argv: list[str]) -> tuple[str, ...]:
    """The verbs whose modules this command line needs: one, or all for `--help` and shell completion."""
    if COMPLETE in os.environ:
        return tuple(VERBS)
    rest = iter(argv)
    for word in rest:
        if word == "--lab":
            next(rest, None)
        elif not word.startswith("-"):
            if word not in VERBS:
                raise unknown_verb(word)
            return (word,)
    return tuple(VERBS)


def unknown_verb(word: str) -> NetlabError:
    from netlab.errors import InputError

    if word in NOT_BUILT:
        return InputError(f"`netlab {word}` is not built yet in this version; `netlab --help` lists the verbs")
    close = difflib.get_close_matches(word, VERBS, n=1)
    hint = f"did you mean `netlab {close[0]}`?" if close else "`netlab --help` lists the verbs"
    return InputError(f"unknown verb {word!r}; {hint}")


def build(verbs: tuple[str, ...]) -> typer.Typer:
    """The typer application with these verbs only."""
    app = typer.Typer(
        help=HELP,
        epilog=EPILOG,
        add_completion=COMPLETE in os.environ,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    )
    app.callback()(root)
    for verb in verbs:
        module = importlib.import_module(f"netlab.cli.{VERBS[verb]}")
        if verb in GROUPS:
            app.add_typer(guard_all(module.app), name=verb)
        else:
            function = getattr(module, verb.replace("-", "_"), None) or getattr(module, f"{verb}_")
            app.command(verb, context_settings=getattr(module, "CONTEXT", {}).get(verb))(guard(function))
    return app


def show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


def root(
    lab: Annotated[str | None, typer.Option("--lab", metavar="LAB", help="The lab to talk to (or NETLAB_LAB).")] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=show_version)] = False,
) -> None:
    if lab:
        os.environ["NETLAB_LAB"] = lab


def guard_all(app: typer.Typer) -> typer.Typer:
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = guard(command.callback)
    return app


def guard(function: Callable[..., int | None]) -> Callable[..., None]:
    """The verb with its result and its errors turned into an exit code: the only place where that happens."""

    @functools.wraps(function)
    def verb(*args: Any, **kwargs: Any) -> None:
        try:
            code = function(*args, **kwargs) or 0
            sys.stdout.flush()
        except NetlabError as error:
            report(error)
            code = EXEC_FAILED if function.__name__.rstrip("_") in PROGRAMS else error.exit_code
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Exception as error:
            code = failed(error, function.__name__.rstrip("_") in PROGRAMS)
        raise Finished(code)

    return verb


def broken_pipe() -> int:
    """Nobody reads on (`| head`): nothing more is said; returns the exit code."""
    discard_output()
    return BROKEN_PIPE


def discard_output() -> None:
    """What is left of standard output goes nowhere: the interpreter flushes once more at exit, and would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def failed(error: Exception, is_program: bool) -> int:
    """A reader who left, a machine that has run out of something, Ctrl-C under another name, or a mistake of ours; returns the
    exit code.
    """
    if isinstance(error, BrokenPipeError):
        return broken_pipe()
    if isinstance(error.__cause__, KeyboardInterrupt):  # while Python before 3.12 made a class: it calls that a RuntimeError
        return INTERRUPTED
    from netlab.kernel.refusals import refusal

    try:
        sys.stdout.flush()
    except OSError:
        discard_output()
    told = refusal(error)
    if told is None:
        return bug(is_program)
    report(told)
    return EXEC_FAILED if is_program else told.exit_code


def bug(is_program: bool) -> int:
    """Show the exception that is being handled, a mistake of netlab's own; returns the exit code."""
    import traceback

    traceback.print_exc()
    print("error: this is a bug in netlab; the lines above belong in its report", file=sys.stderr)
    return EXEC_FAILED if is_program else BUG


def report(error: NetlabError) -> None:
    from netlab.cli.output import error_text

    print(error_text(error), file=sys.stderr)
