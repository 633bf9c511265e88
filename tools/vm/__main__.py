"""`python -m tools.vm`: build the VM's image, run a command in the VM.

    python -m tools.vm build [--cache DIR]
    python -m tools.vm run [--user tester] [--timeout SECONDS] -- COMMAND...

The command's exit code is ours; 3: this machine cannot (what is missing is said), 124: it took too long, 125: the VM died.
"""

import argparse
import os
import signal
import sys
from typing import Any

from tools.vm import machine
from tools.vm.image import Unable, image, say


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.vm", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--cache", help="where the image is kept (default: NETLAB_VM_CACHE, ~/.cache/netlab-vm)")
    verbs = parser.add_subparsers(dest="verb", required=True)
    build = verbs.add_parser("build", help="build the image if the cache has none of this content")
    run = verbs.add_parser("run", help="run a command in the VM's copy of this checkout")
    for verb in (build, run):
        verb.add_argument("--cache", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    run.add_argument("--user", default="root", choices=("root", "tester"))
    run.add_argument("--timeout", type=float, default=600, metavar="SECONDS")
    run.add_argument("--bring", action="append", default=[], metavar="PATH", help="a file to bring back into this checkout")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    given = parser.parse_args()
    if given.cache:
        os.environ["NETLAB_VM_CACHE"] = given.cache
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        found = image(os.environ)
        if given.verb == "build":
            print(found.disk.parent)
            return 0
        argv = given.argv[1:] if given.argv[:1] == ["--"] else given.argv
        if not argv:
            parser.error("run: a command is wanted")
        job = machine.Job(tuple(argv), given.user, bring=tuple(given.bring))
        return machine.run(found, job, _show, given.timeout)
    except Unable as error:
        return _fail(error, 3)
    except TimeoutError as error:
        return _fail(error, 124)
    except machine.Died as error:
        return _fail(error, 125)
    except KeyboardInterrupt:
        return 130


def _show(line: dict[str, Any]) -> None:
    if "out" in line:
        print(line["out"], flush=True)


def _fail(error: Exception, code: int) -> int:
    say(str(error))
    return code


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
