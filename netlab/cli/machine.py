"""doctor, completion: about this machine and this shell, not about a lab."""

import os
from typing import Annotated

import typer

from netlab.cli import output
from netlab.cli.output import paint


def doctor(form: Annotated[str | None, typer.Option("-o", "--output", metavar="json")] = None) -> int:
    """Check whether this machine can run labs. Says how to get what is missing; exit code 3 when it cannot.

    \b
    Examples:
      netlab doctor
      netlab doctor -o json
    """
    output.choose(form, ("json",), "-o")
    from netlab.kernel import tools

    checks = tools.checks()
    able = all(check.ok or not check.needed for check in checks)
    if form == "json":
        rows = [
            {"name": one.name, "ok": one.ok, "needed": one.needed, "found": one.found, "remedy": one.remedy} for one in checks
        ]
        output.print_json({"able": able, "checks": rows})
    else:
        from netlab.cli.tables import align

        colour = output.coloured()
        words = {True: "ok", False: "missing"}
        table = [[one.name, words[one.ok] if one.ok or one.needed else "optional", one.found or one.remedy] for one in checks]
        shown = align([["CHECK", "STATE", "FOUND, OR HOW TO GET IT"], *table])
        for line, check in zip(shown.splitlines(), [None, *checks], strict=True):
            tint = "bold" if check is None else "green" if check.ok else "red" if check.needed else "yellow"
            print(paint(line, tint, colour))
        output.message("this machine can run labs" if able else "this machine cannot run labs yet: see above")
    return 0 if able else 3


def completion(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish")]) -> int:
    """Print the completion script of a shell.

    \b
    Examples:
      netlab completion bash > ~/.local/share/bash-completion/completions/netlab
      source <(netlab completion bash)
    """
    from netlab.cli.app import COMPLETE, main

    os.environ[COMPLETE] = f"source_{output.choose(shell, ('bash', 'zsh', 'fish'), 'completion')}"
    return main([])
