"""The VM's image: kernel, first file system and disk, built once a content and kept outside the checkout.

Decides: where images are kept, who builds one, how a build leaves nothing behind. Refuses to know: what is in it, how it is
booted. Building needs root (debootstrap makes device nodes and runs Debian's own scripts in a chroot); whoever may read the
cache can boot what is in it.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tools.vm import recipe

NEEDED = {"debootstrap": "debootstrap", "mke2fs": "e2fsprogs", "unshare": "util-linux"}
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PR_SET_PDEATHSIG = 1


class Unable(Exception):
    """This machine cannot do it; says what is missing and how to get it."""


@dataclass(frozen=True, slots=True)
class Image:
    """What QEMU is given. `disk` is never written to."""

    kernel: Path
    initramfs: Path
    disk: Path


def cache(environment: Mapping[str, str]) -> Path:
    """NETLAB_VM_CACHE, or netlab-vm in the user's cache directory."""
    given = environment.get("NETLAB_VM_CACHE")
    home = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(given) if given else Path(home) / "netlab-vm"


def image(environment: Mapping[str, str]) -> Image:
    """The image, built now if the cache has none of this content. Raises: Unable."""
    place = cache(environment)
    found = _known(place / recipe.key())
    if found is not None:
        return found
    _check_machine(place)
    place.mkdir(parents=True, exist_ok=True)
    with _locked(place / "lock"):
        found = _known(place / recipe.key())
        return found if found is not None else _build(place, environment)


def _known(directory: Path) -> Image | None:
    found = Image(directory / "vmlinuz", directory / "initramfs", directory / "disk")
    return found if found.disk.exists() else None


def _check_machine(place: Path) -> None:
    """Raises: Unable, before anything is made."""
    missing = [package for program, package in NEEDED.items() if shutil.which(program, path=_PATH) is None]
    install = f"apt-get install -y --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0:
        build = f"cd {recipe.CHECKOUT} && {sys.executable} -m tools.vm build --cache {place}"
        command = f"{install} && {build}" if missing else build
        raise Unable(f"building the test VM's image needs root, once. As root, run:\n  sh -c '{command}'")
    if missing:
        raise Unable(f"building the test VM's image needs {', '.join(missing)}. Run:\n  {install}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(place: Path, environment: Mapping[str, str]) -> Image:
    """Raises: Unable when a step fails; its log stays in the cache."""
    for old in place.glob("building-*"):  # of a build that was killed: we hold the lock
        shutil.rmtree(old)
    work, log, final = place / f"building-{os.getpid()}", place / "build.log", place / recipe.key()
    started = time.monotonic()
    say(f"building the test VM's image {final} (log: {log})")
    out = work / "out"
    out.mkdir(parents=True)
    try:
        with log.open("w") as lines:
            recipe.make(work / "root", out, lambda command, what: _run(command, what, lines), environment)
        shutil.rmtree(final, ignore_errors=True)
        out.rename(final)
    finally:
        shutil.rmtree(work)
    say(f"built in {time.monotonic() - started:.0f} s")
    found = _known(final)
    assert found is not None, f"no disk in {final}"
    return found


def _run(command: list[str], what: str, log: TextIO) -> None:
    """In mount and pid namespaces of its own: whatever it mounts or starts ends with it, however this process ends."""
    inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", *command]
    process = subprocess.Popen(
        inside,
        cwd=recipe.CHECKOUT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{_PATH}"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        preexec_fn=die_with_parent,
    )
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code:
        last = "\n".join(f"  {line}" for line in Path(log.name).read_text(errors="replace").splitlines()[-15:])
        raise Unable(f"building the test VM's image: {what} failed ({code}); the last lines of {log.name}:\n{last}")


def die_with_parent() -> None:
    """To be run in a child: it is killed when this process ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def say(text: str) -> None:
    """A line for people, on standard error."""
    print(f"vm: {text}", file=sys.stderr, flush=True)
