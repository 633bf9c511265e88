"""`make torture`: every torture as often as the issue asks for, and the table of what was left. `--small`: as CI does."""

import argparse
import sys
import time

from tests.torture.tortures import ROWS, Row
from tests.torture.world import NotPlayed, world


def run(row: Row, times: int) -> tuple[str, list[str]]:
    """What the torture says, and what was left. A witness lab lives beside it, and a next lab must work."""
    with world() as made:
        made.run("up", "--name", "witness", "-f", "manifests/kubia.yaml")
        with world() as mine:
            said = row.run(mine, times)
            left = mine.left()
            mine.works()
            left += mine.left()
        seen = made.run("probe", "--lab", "witness", "pod/client", "svc/kubia", "--count", "20")
        if seen.returncode:
            left.append(f"the witness lab does not work: {seen.stdout}{seen.stderr}")
        made.run("down", "witness")
        return said, left + made.left()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("names", nargs="*", help="only these rows")
    wanted = parser.parse_args()
    failed = 0
    print(f"{'what was done':<78} {'times':>6} {'seconds':>8}  left")
    for row in ROWS:
        if wanted.names and row.name not in wanted.names:
            continue
        times, started = row.small if wanted.small else row.full, time.monotonic()
        try:
            said, left = run(row, times)
            words = "; ".join(left) or "nothing"
        except NotPlayed as reason:
            said, left, words = "", [], f"not played: {reason}"
        except AssertionError as error:
            said, left, words = "", ["failed"], f"FAILED: {error}"
        failed += bool(left)
        print(
            f"{row.about[:78]:<78} {times:>6} {time.monotonic() - started:>8.1f}  {words}{f'  ({said})' if said else ''}",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
