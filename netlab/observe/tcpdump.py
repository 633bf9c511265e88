"""tcpdump's command line, taken apart: what concerns capturing, which we do, and what concerns showing, which tcpdump does.

Why: in a user namespace with a single uid tcpdump cannot capture (it wants to change its user, with `-Z root` too), but it can
read our capture from standard input. Decides which argument is which, and compiles filters by running `tcpdump -ddd`. Refuses to
capture.
"""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from netlab.errors import InputError, MachineError
from netlab.numerals import natural

_WITH_VALUE = frozenset("BcCEFGijmMQrsTVwWyzZ")
_LONG_WITH_VALUE = {
    "buffer-size": "B", "interface": "i", "linktype": "y", "relinquish-privileges": "Z", "snapshot-length": "s",
    "time-stamp-precision": "precision", "time-stamp-type": "j", "direction": "Q", "list-remote-interfaces": "r",
}  # fmt: skip
_FLAG_NAMES = {"no-promiscuous-mode": "p", "monitor-mode": "I", "immediate-mode": "immediate"}
_OURS = frozenset({"B", "i", "I", "j", "p", "Q", "s", "y", "Z", "immediate"})
_NO_CAPTURE = frozenset({"D", "L", "J", "d", "r", "V", "h"})
_NO_CAPTURE_LONG = frozenset({"list-interfaces", "list-data-link-types", "list-time-stamp-types", "help", "version"})

Direction = Literal["in", "out", "inout"]
Instruction = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Split:
    """`interface` '' is tcpdump's own choice (the first that is not loopback). `direction` is in, out or inout.

    shown: what goes to `tcpdump -r -`. captures: False where the command line asks for no capture at all (-D, -r FILE, --help).
    """

    interface: str = ""
    expression: str = ""
    direction: Direction = "inout"
    snap_bytes: int = 262_144
    count: int | None = None
    shown: tuple[str, ...] = ()
    captures: bool = True


def split(arguments: Sequence[str]) -> Split:
    """Take a tcpdump command line apart. Raises InputError for an option without its value or a number that is none."""
    shown: list[str] = []
    words: list[str] = []
    ours: dict[str, str] = {}
    captures = True
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if word.startswith("--"):
            captures &= _long(word, rest, ours, shown)
        elif word.startswith("-") and len(word) > 1:
            captures &= _short(word, rest, ours, shown)
        else:
            words.append(word)
    return Split(
        interface=ours.get("i", ""),
        expression=" ".join(words),
        direction=_direction(ours.get("Q", "inout")),
        snap_bytes=_number("-s", ours.get("s", "0"), 262_144) or 262_144,
        count=_number("-c", ours["c"], 1 << 62) if "c" in ours else None,
        shown=tuple(shown),
        captures=captures,
    )


def _short(word: str, rest: list[str], ours: dict[str, str], shown: list[str]) -> bool:
    """A cluster such as -nni or -c10. False when it asks for something that is no capture."""
    captures = True
    flags = ""
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        captures &= letter not in _NO_CAPTURE
        if letter not in _WITH_VALUE:
            if letter not in _OURS:
                flags += letter
            continue
        value, letters = (letters or _next(f"-{letter}", rest)), ""
        if letter in _OURS:
            ours[letter] = value
            continue
        if letter == "c":
            ours["c"] = value
        shown += [f"-{letter}", value]
    if flags:
        shown.append(f"-{flags}")
    return captures


def _long(word: str, rest: list[str], ours: dict[str, str], shown: list[str]) -> bool:
    name, equals, value = word[2:].partition("=")
    short = _LONG_WITH_VALUE.get(name, "")
    if short and not equals:
        value = _next(word, rest)
    if short in _OURS:
        ours[short] = value
    elif _FLAG_NAMES.get(name) not in _OURS:
        shown.append(f"--{name}={value}" if short or equals else word)
    return name not in _NO_CAPTURE_LONG


def _next(option: str, rest: list[str]) -> str:
    if not rest:
        raise InputError(f"tcpdump: option {option} needs a value")
    return rest.pop(0)


def _number(option: str, text: str, limit: int) -> int:
    number = natural(text)
    if number is None or number > limit:
        raise InputError(f"tcpdump: option {option} needs a number, got {text!r}")
    return number


def _direction(text: str) -> Direction:
    match text:
        case "in" | "out" | "inout":
            return text
        case _:
            raise InputError(f"tcpdump: -Q takes in, out or inout, got {text!r}")


def program() -> str:
    """Where tcpdump is. Raises MachineError."""
    found = shutil.which("tcpdump") or shutil.which("tcpdump", path="/usr/sbin:/sbin:/usr/bin")
    if found is None:
        raise MachineError("tcpdump is not installed, and it is what compiles capture filters: apt-get install tcpdump")
    return found


def compile_filter(expression: str) -> tuple[Instruction, ...]:
    """A filter for Ethernet frames, as the kernel takes it. Raises InputError with tcpdump's own words; '' accepts everything."""
    if not expression.strip():
        return ((0x06, 0, 0, 0x40000),)
    command = [program(), "-y", "EN10MB", "-ddd", "--", expression]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        words = done.stderr.strip().splitlines()[-1:] or ["no reason given"]
        raise InputError(f"capture filter {expression!r}: {words[0].removeprefix('tcpdump: ')}")
    rows = [line.split() for line in done.stdout.splitlines()[1:]]
    return tuple((int(code), int(true), int(false), int(value)) for code, true, false, value in rows)
