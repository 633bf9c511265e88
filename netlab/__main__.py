"""The `netlab` command. Decides only what must happen before anything heavy is imported; the verbs are in netlab.cli."""

import sys

TYPE_CHECKING = False  # not typing's: its import takes 10 ms, in which Ctrl-C would meet nothing that catches it
if TYPE_CHECKING:
    from netlab.lab.start import Starting


def stand_in() -> None:
    """/dev/null for each standard stream that the caller closed: what is opened next would take its number."""
    import os  # here: see above

    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if null != number:  # Python does without a stream that is open and of no use to it, such as a directory
                os.dup2(null, number)
                os.close(null)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w"))


def early_start(argv: list[str]) -> "Starting | None":
    """For `netlab up`: a holder, forked now, that makes its namespaces while this process reads options and manifests."""
    verb = next((word for word in argv[1:] if not word.startswith("-")), "")
    if verb != "up" or {"--help", "-h"} & {*argv}:
        return None
    from netlab.lab import start

    return start.fork_holder()


def main() -> None:
    try:
        stand_in()
        starting = early_start(sys.argv)
        from netlab.cli.app import main as run

        sys.exit(run(sys.argv[1:], starting))
    except KeyboardInterrupt:  # in the middle of an import, where no verb can catch it
        sys.exit(130)
    except RuntimeError as error:  # what Python before 3.12 makes of it where a class is being made
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        sys.exit(130)
    except (OSError, MemoryError) as error:  # the same: no descriptor, process or memory is left to begin with
        print(
            f"error: this machine refuses to start netlab: {str(error) or 'out of memory'}; `ulimit -a` shows its limits",
            file=sys.stderr,
        )
        sys.exit(3)


if __name__ == "__main__":
    main()
