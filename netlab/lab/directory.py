"""Where a running lab can be found: one private directory a lab, with its socket, lock and log.

    BASE/NAME/lock   held (flock) by the holder as long as it lives: whether a lab runs is a question to the kernel, not to a
    pid file BASE/NAME/api    the API's Unix socket
    BASE/NAME/log    what the holder and its agents printed
    BASE/NAME/info   JSON written once: pid, version, when it was started

BASE is $XDG_RUNTIME_DIR/netlab where that is a private directory of ours, otherwise /run/netlab (root) or /tmp/netlab-UID. A
dead lab's directory is swept by the next command. Nothing else of a lab lies outside its own mount namespace.
"""

import contextlib
import fcntl
import json
import os
import re
import select
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from netlab.errors import InputError, LabGone, MachineError

UNKNOWN: Mapping[str, Any] = MappingProxyType(
    {"version": "(unknown)", "pid": 0, "started": 0.0, "proxy": "(unknown)", "nodes": 0, "pods": 0, "ready": 0}
)
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")


def base(environment: Mapping[str, str]) -> Path:
    """The directory of all labs of this user; made, private, and refused when someone else could have made it."""
    uid = os.geteuid()
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and _private(Path(runtime), uid):
        path = Path(runtime) / "netlab"
    elif uid == 0 and os.access("/run", os.W_OK):
        path = Path("/run/netlab")
    else:
        path = Path(environment.get("TMPDIR") or "/tmp") / f"netlab-{uid}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(
            f"cannot make {path} ({error.strerror}): set XDG_RUNTIME_DIR to a writable directory of yours"
        ) from None
    if not _private(path, uid):
        raise MachineError(f"{path} is not a private directory of uid {uid}: remove it, or set XDG_RUNTIME_DIR to one that is")
    return path


def _private(path: Path, uid: int) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == uid and not status.st_mode & 0o022


def check_name(name: str) -> None:
    """Raises InputError unless this can be the name of a lab. Asked before the name becomes part of any path."""
    if not NAME.fullmatch(name):
        raise InputError(f"{name!r} is no lab name: use at most 63 lower-case letters, digits, '-' and '.'")


def claim(parent: Path, name: str) -> tuple[Path, int]:
    """A lab's new directory, and its lock's descriptor. Raises InputError when a lab of this name runs."""
    check_name(name)
    directory = parent / name
    with _base_lock(parent):
        _remove_dead(directory)
        try:
            directory.mkdir(mode=0o700)
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise InputError(
                f"a lab named {name} is running already: `netlab down {name}` ends it, `--name` makes another"
                if (directory / "lock").exists()
                else f"{directory} is there and no lab made it: remove it, or choose another name with --name"
            ) from None
        except OSError as error:
            raise MachineError(f"cannot make {directory}: {error.strerror}") from None
        fcntl.flock(lock, fcntl.LOCK_EX)
        return directory, lock


def sweep(parent: Path) -> None:
    """Remove the directories of labs that have died."""
    with _base_lock(parent):
        for directory in parent.iterdir():
            if directory.is_dir():
                _remove_dead(directory)


def remove(directory: Path) -> None:
    """Take a lab's directory away: socket first, lock last. Only what a lab makes is removed, never what else may lie there."""
    for name in ("api", "info", "log"):
        with contextlib.suppress(OSError):
            (directory / name).unlink()
    with contextlib.suppress(OSError):
        (directory / "fs").rmdir()
    with contextlib.suppress(OSError):
        (directory / "lock").unlink()
    with contextlib.suppress(OSError):
        directory.rmdir()


def _remove_dead(directory: Path) -> None:
    """Remove the directory if its holder has gone; one without a lock is left over from a removal, and empty."""
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        with contextlib.suppress(OSError):
            directory.rmdir()
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(directory)
    except BlockingIOError:
        pass
    finally:
        os.close(lock)


def wait_gone(directory: Path, timeout_s: float) -> bool:
    """Whether the lab ends within that time, by its lock: the kernel gives it free when the holder is dead."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
        finally:
            os.close(lock)
        select.select([], [], [], 0.005)  # a lock has nothing that can be waited for with a deadline


def running(parent: Path) -> list[Path]:
    """The directories of the labs that run, by name; dead ones are swept."""
    sweep(parent)
    return sorted(path for path in parent.iterdir() if path.is_dir() and (path / "info").exists())


def find(parent: Path, name: str | None) -> Path:
    """The directory of the named lab, or of the only one. Raises LabGone, InputError."""
    paths = running(parent)
    if name:
        for path in paths:
            if path.name == name:
                return path
        names = ", ".join(path.name for path in paths)
        raise LabGone(f"no lab named {name} is running" + (f" (running: {names})" if names else "; `netlab up` starts one"))
    if not paths:
        raise LabGone("no lab is running; `netlab up` starts one")
    if len(paths) > 1:
        raise InputError(
            f"several labs are running ({', '.join(path.name for path in paths)}): pick one with --lab NAME or NETLAB_LAB"
        )
    return paths[0]


def info(directory: Path) -> dict[str, Any]:
    """What the holder wrote about itself, and UNKNOWN for what a holder of another version does not write.

    Raises LabGone when it is not there.
    """
    try:
        return {**UNKNOWN, **json.loads((directory / "info").read_text())}
    except (OSError, ValueError, TypeError):
        raise LabGone(f"lab {directory.name} is gone") from None


@contextlib.contextmanager
def _base_lock(parent: Path) -> Iterator[None]:
    lock = os.open(parent / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
