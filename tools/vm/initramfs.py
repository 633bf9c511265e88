"""The VM's first file system: busybox, the modules that the disk needs, and a script that finds the disk.

Decides: what is between the kernel and the guest's own init (a read-only disk under a tmpfs, the job unpacked into it). Debian's
own initramfs does more, and takes ten times as long without KVM.
"""

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "ext4", "overlay")
INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox mkdir -p /proc /sys /dev /ro /rw /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in {modules}; do /bin/busybox insmod /modules/$module || echo "netlab-vm: no $module"; done
/bin/busybox mount -t ext4 -o ro,noload /dev/vda /ro || echo "netlab-vm: the disk does not mount"
/bin/busybox mount -t tmpfs -o size=80% tmpfs /rw
/bin/busybox mkdir /rw/upper /rw/work
/bin/busybox mount -t overlay -o lowerdir=/ro,upperdir=/rw/upper,workdir=/rw/work overlay /new
/bin/busybox mkdir -p /new/job
/bin/busybox tar -xf /dev/vdb -C /new/job || echo "netlab-vm: no job on the second disk"
/bin/busybox mount --move /dev /new/dev
/bin/busybox mount --move /proc /new/proc
/bin/busybox mount --move /sys /new/sys
exec /bin/busybox switch_root /new /job/guest/init
"""


def build(root: Path, release: str) -> bytes:
    """A cpio archive ("newc", uncompressed: the kernel is quicker without) for the kernel `release` of the VM's root."""
    files = [(f"modules/{path.name}", path.read_bytes(), 0o644) for path in _modules(root, release)]
    init = INIT.format(modules=" ".join(name.rpartition("/")[2] for name, _, _ in files))
    busybox = next(path for path in (root / "usr/bin/busybox", root / "bin/busybox") if path.exists())
    entries = [("bin", b"", stat.S_IFDIR | 0o755), ("modules", b"", stat.S_IFDIR | 0o755)]
    entries += [("bin/busybox", busybox.read_bytes(), stat.S_IFREG | 0o755), ("init", init.encode(), stat.S_IFREG | 0o755)]
    entries += [(name, data, stat.S_IFREG | mode) for name, data, mode in files]
    return b"".join(_entry(index, *entry) for index, entry in enumerate([*entries, ("TRAILER!!!", b"", 0)], 1))


def _modules(root: Path, release: str) -> Iterator[Path]:
    """The module files in the order in which they are loaded; what is built into the kernel has none."""
    seen: set[str] = set()
    for name in MODULES:
        shown = subprocess.run(
            ["chroot", str(root), "/usr/sbin/modprobe", "--set-version", release, "--show-depends", name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for line in shown.splitlines():
            word, _, path = line.strip().partition(" ")
            if word == "insmod" and path not in seen:
                seen.add(path)
                yield root / path.strip().lstrip("/")


def _entry(inode: int, name: str, data: bytes, mode: int) -> bytes:
    """One file of the archive: a header of hexadecimal numbers, the name, the data, each filled up to four bytes."""
    numbers = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
