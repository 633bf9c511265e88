"""Volumes of a container, bound where it wants to see them, in a mount namespace that is its own.

Decides what is done where this machine has no such mount point. Nothing is made on the machine's file systems: the nearest
directory that is there is laid over with a tmpfs directory that holds the same entries (bound one by one) and the missing ones.
Over "/" that tmpfs becomes the root.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from netlab.kernel import namespaces as ns

Mounts = Sequence[tuple[str, str, bool]]


def bind(mounts: Mounts, stage: str) -> None:
    """Bind (directory or file, mount point, read-only) in this order. `stage`: an empty directory. Raises OSError."""
    for source, target, read_only in mounts:
        kept = os.open(source, os.O_PATH | os.O_CLOEXEC)  # it stays in reach when a directory above it is laid over
        try:
            if not os.path.lexists(target):
                _make(Path(target), Path(source).is_dir(), Path(stage))
            real = os.path.realpath(target)
            ns.mount(f"/proc/self/fd/{kept}", real, "", ns.MS_BIND | ns.MS_REC)
            if read_only:
                ns.mount("none", real, "", ns.MS_BIND | ns.MS_REMOUNT | ns.MS_RDONLY | ns.MS_NOSUID | ns.MS_NODEV)
        finally:
            os.close(kept)


def _make(target: Path, directory: bool, stage: Path) -> None:
    """A mount point that this machine does not have."""
    above = next(parent for parent in target.parents if parent.is_dir())
    if not _is_ours(above):
        _lay_over(above, stage)
    (target if directory else target.parent).mkdir(parents=True, exist_ok=True)
    if not directory:
        target.touch()


def _is_ours(directory: Path) -> bool:
    """Whether it was laid over before, or lies on a volume: the mark is a file that no machine has."""
    return (directory / ".netlab-laid-over").exists()


def _lay_over(directory: Path, stage: Path) -> None:
    under = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    ns.mount("netlab", str(stage), "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755")
    (stage / ".netlab-laid-over").touch()
    for entry in os.scandir(directory):
        place = stage / entry.name
        if entry.is_symlink():
            place.symlink_to(Path(entry.path).readlink())
            continue
        place.mkdir() if entry.is_dir() else place.touch()
        ns.mount(f"/proc/self/fd/{under}/{entry.name}", str(place), "", ns.MS_BIND | ns.MS_REC)
    os.close(under)
    stage.chmod(directory.stat().st_mode & 0o7777)
    ns.mount(str(stage), str(directory), "", ns.MS_MOVE)
    if directory == Path("/"):
        os.chroot(".")
        os.chdir("/")
