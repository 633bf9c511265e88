"""capture, tcpdump: look at packets."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from netlab.cli import output
from netlab.cli.lab import TargetArgument, run_inside
from netlab.cli.output import LabOption, NamespaceOption
from netlab.errors import InputError

CONTEXT = {"tcpdump": {"allow_interspersed_args": False}}


def tcpdump(
    target: TargetArgument,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="TCPDUMP-ARGUMENT")] = None,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> int:
    """Run tcpdump inside a pod, node or host. All that follows TARGET is tcpdump's.

    \b
    Examples:
      netlab tcpdump node/node-170 -ni any -c 10 tcp port 8080
      netlab tcpdump pod/client -n icmp
    """
    rest = list(arguments or [])
    rest = rest[1:] if rest[:1] == ["--"] else rest
    running = output.attach(lab)
    if one_uid(running.pid):
        from netlab.cli import capturing

        return capturing.run_tcpdump(running, target, rest, namespace)
    from netlab.observe.tcpdump import program

    return run_inside(running, target, [program(), *stay_root(rest)], None, namespace)


def one_uid(pid: int) -> bool:
    """Whether only one uid is mapped in the lab (no newuidmap): tcpdump cannot capture then, it wants to change its user."""
    return sum(int(line.split()[2]) for line in Path(f"/proc/{pid}/uid_map").read_text().splitlines()) == 1


def stay_root(arguments: list[str]) -> list[str]:
    """Without its change to the user `tcpdump`, which may not write where the caller does; `-Z USER` asks for one."""
    return arguments if any(one.startswith("-Z") for one in arguments) else ["-Z", "root", *arguments]


def capture(
    targets: Annotated[list[str] | None, typer.Argument(metavar="TARGET", help="Where to look; everywhere without one.")] = None,
    file: Annotated[
        str | None, typer.Option("-w", "--write", metavar="FILE.pcapng", help="Write them to a file; - is standard output.")
    ] = None,
    expression: Annotated[
        str, typer.Option("-f", "--filter", metavar="BPF-FILTER", help="As tcpdump takes it: 'tcp port 80'.")
    ] = "",
    count: Annotated[int | None, typer.Option("-c", "--count", min=1, metavar="N", help="Stop after N packets.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--for", metavar="SECONDS", callback=output.above_zero, help="Stop after so long; otherwise at Ctrl-C."),
    ] = None,
    comments: Annotated[
        bool, typer.Option("--comments/--no-comments", help="Write who is who, and the NAT of each connection, into the file.")
    ] = True,
    file_size: Annotated[
        float | None, typer.Option("-C", "--file-size", metavar="MB", help="Begin another file after so many million bytes.")
    ] = None,
    file_seconds: Annotated[
        float | None, typer.Option("-G", "--file-seconds", metavar="SECONDS", help="Begin another file after so long.")
    ] = None,
    files: Annotated[
        int | None, typer.Option("-W", "--files", min=1, metavar="N", help="Keep the last N files of -C or -G.")
    ] = None,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> int:
    """Record packets of many places at once. They come in the order in which they passed; Ctrl-C ends it.

    \b
    Examples:
      netlab capture --for 5
      netlab capture node/node-170 pod/client -f 'tcp port 80' -w lab.pcapng
      netlab capture -w - | wireshark -k -i -
      netlab capture -w lab.pcapng -C 100 -W 5     # a ring: lab_00001.pcapng and on, the last five are kept
    """
    from netlab.cli import capturing

    sys.stdout.flush()
    limits = None
    if file_size is not None or file_seconds is not None:
        if (file_size is not None and file_size <= 0) or (file_seconds is not None and file_seconds <= 0):
            raise InputError("-C and -G must be above 0")
        limits = capturing.Limits(None if file_size is None else int(file_size * 1e6), file_seconds, files)
    elif files is not None:
        raise InputError("-W says how many files of -C MB or -G SECONDS are kept: give one of these, too")
    return capturing.run(
        output.attach(lab), targets or [], file, expression, count, seconds, namespace, comments=comments, rotation=limits
    )
