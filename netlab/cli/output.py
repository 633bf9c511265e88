"""What every verb shares: where text goes, whether it is coloured, how a document is printed, and which lab is meant.

Documents (json, yaml, names) and tables go to standard output, messages to standard error.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from netlab.errors import ApiError, InputError, NetlabError

if TYPE_CHECKING:
    from netlab.client import Lab

LabOption = Annotated[
    str | None,
    typer.Option("--lab", metavar="LAB", envvar="NETLAB_LAB", help="The lab to talk to; not needed while one is running."),
]
NamespaceOption = Annotated[str, typer.Option("-n", "--namespace", metavar="NS", help="Namespace of plain names.")]


def above_zero(seconds: float | None) -> float | None:
    """A time in which something can happen; Typer's callback of options that take one."""
    if seconds is not None and not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"{seconds:g} is not more than 0 seconds")
    return seconds


FilesOption = Annotated[
    list[str] | None,
    typer.Option("-f", "--filename", metavar="MANIFEST|DIR|-", help="Kubernetes objects: a file, a directory or standard input."),
]

COLOURS = {"green": "32", "red": "31", "yellow": "33", "blue": "34", "bold": "1", "dim": "2"}


def coloured(stream: IO[str] | None = None) -> bool:
    """Whether this stream shows colours: a terminal, and NO_COLOR is not set."""
    stream = stream if stream is not None else sys.stdout
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, on: bool) -> str:
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if on else text


def message(text: str) -> None:
    """A line for the person, never for the script."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(text: str) -> Iterator[None]:
    """While something goes on, say so on a terminal; the line is gone afterwards. Pipes and NO_COLOR terminals see nothing."""
    shown = coloured(sys.stderr)
    if shown:
        print(f"{text} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def warn(texts: Sequence[str]) -> None:
    for text in texts:
        message(f"{paint('warning:', 'yellow', coloured(sys.stderr))} {text}")


def error_text(error: NetlabError) -> str:
    """The error as the command line shows it: one line a problem, an API refusal in kubectl's words."""
    mark = paint("error:", "red", coloured(sys.stderr))
    match error:
        case ApiError():
            return f"{mark} {error} ({error.reason})" if error.reason and error.reason not in str(error) else f"{mark} {error}"
        case InputError():
            return "\n".join(f"{mark} {problem}" for problem in error.problems)
        case _:
            return f"{mark} {error}"


def print_json(document: Any) -> None:
    """One JSON document on standard output, keys in the order given."""
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


def print_yaml(document: Any) -> None:
    import yaml

    yaml.dump(
        json.loads(json.dumps(document, default=str)), sys.stdout, sort_keys=True, default_flow_style=False, allow_unicode=True
    )


def attach(lab: str | None) -> "Lab":
    """The lab that `--lab`, NETLAB_LAB or there being only one means."""
    from netlab.client import Lab

    return Lab.attach(lab or None)


def choose(given: str | None, allowed: Sequence[str], option: str) -> str | None:
    """The value of an option that takes one of a few words; exit 2 with a suggestion otherwise."""
    if given is None or given in allowed:
        return given
    import difflib

    close = difflib.get_close_matches(given, allowed, n=1)
    hint = f"; did you mean {close[0]}?" if close else f"; it takes {', '.join(allowed)}"
    raise InputError(f"{option} {given}: unknown value{hint}")


def writable(path: str | Path) -> None:
    """Raises InputError, before anything is done for it, unless a file can be written there. It is made where there is none."""
    try:
        with open(path, "ab"):
            pass
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def facts() -> list[str]:
    """Of this moment and machine, for the head of a page: time, netlab's version, kernel, who runs it."""
    import platform
    from datetime import datetime

    from netlab import __version__

    user = "root" if os.geteuid() == 0 else "an ordinary user"
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z")
    return [now, f"netlab {__version__}", f"{platform.system()} {platform.release()}", f"run by {user}"]


def number_of(number: int, thing: str) -> str:
    """`1 packet`, `2 packets`."""
    return f"{number} {thing}" + ("" if number == 1 else "s")


def node_name(text: str) -> str:
    """The name in `node/NAME`, `nodes/NAME` or NAME."""
    return text.removeprefix("nodes/").removeprefix("node/")


def split_ref(text: str) -> tuple[str, str]:
    """KIND/NAME as kubectl's `delete` and `scale` take it."""
    kind, slash, name = text.partition("/")
    if not slash or not kind or not name:
        raise InputError(f"{text!r}: expected KIND/NAME, such as deploy/web")
    return kind, name
