"""`python -m tests.fuzz TARGET [--seconds N]`: fuzz one reader, guided by coverage where atheris is installed, else by mutation.

A crash is printed with its input, which is also written to `crash-TARGET-HASH`; it then belongs into tests/test_fuzz_found.py.
"""

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

WORDS = [
    b"null",
    b"-1",
    b"1e9",
    b"::",
    b"10.0.0.0/8",
    b"fd00::/64",
    b"{}",
    b"[]",
    b"&a *a",
    b"\xff",
    b"\x00",
    b"..",
    b"None",
]


Target = Callable[[bytes], None]


NAMES = (
    "manifest", "topology", "scenario", "dns", "trace", "connection", "netlink", "rules", "frame", "packet", "words", "request",
    "api", "responder",
)  # fmt: skip


def guarded(name: str, target: Target) -> Target:
    """The target, telling its crashes once and going on."""
    told: set[str] = set()

    def run(data: bytes) -> None:
        try:
            target(data)
        except Exception as error:  # whatever it is, it is what we look for
            where = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} {where.filename}:{where.lineno}"
            if key not in told:
                told.add(key)
                file = Path(f"crash-{name}-{hashlib.sha1(data).hexdigest()[:10]}")
                file.write_bytes(data)
                print(f"CRASH {key}: {error!r:.200}\n  input in {file}", flush=True)

    return run


def mutated(chance: random.Random, data: bytes, corpus: list[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 if changed:
                changed[min(at, len(changed) - 1)] = chance.randrange(256)
            case 1:
                del changed[at : at + chance.randint(1, 20)]
            case 2:
                changed[at:at] = chance.choice(WORDS)
            case 3:
                other = chance.choice(corpus)
                start = chance.randrange(len(other) + 1)
                changed[at:at] = other[start : start + chance.randint(1, 200)]
            case 4:
                lines = bytes(changed).split(b"\n")
                chance.shuffle(lines)
                changed = bytearray(b"\n".join(lines[: chance.randint(1, len(lines))]))
            case _:
                changed[at : at + 8] = chance.choice(WORDS)
    return bytes(changed)


def by_mutation(name: str, seconds: float) -> int:
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

    target = guarded(name, TARGETS[name])
    chance, corpus, count = random.Random(time.time_ns()), seeds(name), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        target(mutated(chance, chance.choice(corpus), corpus))
        count += 1
    return count


def by_coverage(name: str, seconds: float) -> None:
    """Raises ImportError without atheris. It ends the process that runs it: a child, so that its corpus can be taken away."""
    import atheris  # noqa: F401  # asked for here

    with tempfile.TemporaryDirectory(prefix="netlab-fuzz-") as corpus:
        pid = os.fork()
        if pid == 0:
            try:
                _fuzz(name, seconds, corpus)
            finally:
                os._exit(1)
        os.waitpid(pid, 0)


def _fuzz(name: str, seconds: float, corpus: str) -> None:
    import atheris

    with atheris.instrument_imports(include=["netlab"]):
        from tests.fuzz.seeds import seeds
        from tests.fuzz.targets import TARGETS

    for number, data in enumerate(seeds(name)):
        (Path(corpus) / f"seed-{number}").write_bytes(data)
    arguments = [sys.argv[0], corpus, f"-max_total_time={int(seconds)}", "-max_len=8192", "-timeout=30", "-rss_limit_mb=4096"]
    atheris.Setup(arguments, guarded(name, TARGETS[name]))
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--plain", action="store_true", help="by mutation only")
    wanted = parser.parse_args()
    try:
        if not wanted.plain:
            by_coverage(wanted.target, wanted.seconds)
            return 0
    except ImportError:
        pass
    count = by_mutation(wanted.target, wanted.seconds)
    print(f"{wanted.target}: {count} inputs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
