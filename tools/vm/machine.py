"""One boot of the VM for one job: QEMU, with KVM where it really boots, the job on a second disk, lines back by a virtio port.

Decides: QEMU's arguments, how long a boot may take, what is told when QEMU ends early. Refuses to know: what the job is.
"""

import base64
import contextlib
import io
import json
import math
import os
import select
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.vm.image import Image, Unable, cache, die_with_parent, say
from tools.vm.recipe import CHECKOUT, HERE, key

QEMU = "qemu-system-x86_64"
BOOT_S = {"tcg": 120, "kvm": 15}
MEMORY_MIB = 2048
NOT_SENT = (".git", ".venv", ".vagrant", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")


class Died(Exception):
    """QEMU ended, or fell silent, before the job was over."""


@dataclass(frozen=True, slots=True)
class Job:
    """A command run in the VM's copy of the checkout; `bring`: files under it that are brought back."""

    argv: tuple[str, ...]
    user: str = "root"
    env: Mapping[str, str] = field(default_factory=dict)
    bring: tuple[str, ...] = ()


class StoodStill(TimeoutError):
    """For `still_s` the guest told nothing."""


def run(
    image: Image,
    job: Job,
    tell: Callable[[dict[str, Any]], None],
    timeout_s: float,
    processors: int = 2,
    still_s: float = math.inf,
) -> int:
    """The job's exit code; every line that the guest tells goes to `tell`. Raises: Unable, Died, StoodStill, TimeoutError."""
    if shutil.which(QEMU) is None:
        raise Unable(f"{QEMU} is missing. As root: apt-get install -y --no-install-recommends qemu-system-x86")
    with tempfile.TemporaryDirectory(prefix="netlab-vm-") as name:
        directory = Path(name)
        (directory / "job.tar").write_bytes(packed(job))
        for accelerator in _accelerators():
            try:
                return _boot(image, directory, accelerator, tell, timeout_s, processors, still_s)
            except Died:
                if accelerator != "kvm" or _kvm_works() is True:
                    raise
                _remember_kvm(False)
        raise AssertionError("tcg is always there")


def packed(job: Job) -> bytes:
    """A tar archive: the guest's own programs, the job, the checkout as it is here (with what is not committed)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted((HERE / "guest").iterdir()):
            if path.is_file():
                archive.add(path, f"guest/{path.name}")
        text = json.dumps({"argv": job.argv, "user": job.user, "env": dict(job.env), "bring": job.bring}).encode()
        entry = tarfile.TarInfo("job.json")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
        for name in checkout_files():
            archive.add(CHECKOUT / name, f"checkout/{name}", recursive=False)
    return out.getvalue()


def checkout_files() -> list[str]:
    """What git knows or would take; without git, all but caches."""
    listed = ["git", "-C", str(CHECKOUT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    with contextlib.suppress(FileNotFoundError):
        done = subprocess.run(listed, capture_output=True, check=False)
        if done.returncode == 0:
            names = sorted(set(os.fsdecode(done.stdout).split("\0")) - {""})
            return [name for name in names if (CHECKOUT / name).is_file()]
    walked = (path.relative_to(CHECKOUT) for path in sorted(CHECKOUT.rglob("*")))
    return [str(path) for path in walked if not set(path.parts) & set(NOT_SENT) and (CHECKOUT / path).is_file()]


# ---------------------------------------------------------------- KVM: /dev/kvm may open and still not boot this kernel


def _accelerators() -> tuple[str, ...]:
    usable = os.access("/dev/kvm", os.R_OK | os.W_OK) and _kvm_works() is not False
    return ("kvm", "tcg") if usable else ("tcg",)


def _kvm_note() -> Path:
    """What was found since this machine was started, for this image."""
    return cache(os.environ) / f"kvm-{key()}-{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"


def _kvm_works() -> bool | None:
    with contextlib.suppress(OSError):
        return _kvm_note().read_text() == "yes"
    return None


def _remember_kvm(works: bool) -> None:
    if not works:
        say("/dev/kvm is there but does not boot the VM: emulating the processor instead")
    with contextlib.suppress(OSError):  # a cache that is read-only: it is tried again next time
        _kvm_note().write_text("yes" if works else "no")


# ---------------------------------------------------------------- one boot


def _boot(
    image: Image, directory: Path, accelerator: str, tell: Callable[[dict[str, Any]], None], timeout_s: float, processors: int,
    still_s: float,
) -> int:  # fmt: skip
    ours, theirs = socket.socketpair()
    console = directory / "console.log"
    with ours:
        with theirs:
            process = subprocess.Popen(
                arguments(image, directory / "job.tar", console, theirs.fileno(), accelerator, processors),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=(directory / "qemu.log").open("wb"),
                pass_fds=(theirs.fileno(),), preexec_fn=die_with_parent,
            )  # fmt: skip
        try:
            return _listen(ours, process, directory, accelerator, tell, timeout_s, still_s)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def arguments(image: Image, job: Path, console: Path, port: int, accelerator: str, processors: int) -> Sequence[str]:
    """QEMU's command line: no network, no display, nothing that is written to."""
    tcg = ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]
    disk = "if=virtio,format=raw,readonly=on,cache=unsafe,file="
    return [
        QEMU, *(["-accel", "kvm", "-cpu", "host"] if accelerator == "kvm" else tcg), "-machine", "pc,usb=off,vmport=off",
        "-smp", str(processors), "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-nic", "none", "-kernel", str(image.kernel), "-initrd", str(image.initramfs),
        "-append", "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on net.ifnames=0",
        "-serial", f"file:{console}", "-drive", f"{disk}{image.disk}", "-drive", f"{disk}{job}",
        "-device", "virtio-serial-pci", "-chardev", f"socket,id=port,fd={port}",
        "-device", "virtserialport,chardev=port,name=netlab",
    ]  # fmt: skip


def _listen(
    channel: socket.socket, process: "subprocess.Popen[bytes]", directory: Path, accelerator: str,
    tell: Callable[[dict[str, Any]], None], timeout_s: float, still_s: float,
) -> int:  # fmt: skip
    started, lines = time.monotonic(), _Lines(channel)
    try:
        line = lines.read(started + BOOT_S[accelerator])
    except TimeoutError:
        raise Died(f"the VM ({accelerator}) is not up after {BOOT_S[accelerator]} s; its console:\n{_last(directory)}") from None
    if line is not None:
        say(f"Linux {line['hello']} ({accelerator}) up in {time.monotonic() - started:.1f} s")
        if accelerator == "kvm":
            _remember_kvm(True)
    while line is not None:
        try:
            line = lines.read(min(started + timeout_s, time.monotonic() + still_s))
        except TimeoutError:
            if time.monotonic() < started + timeout_s:
                raise StoodStill(f"the VM told nothing for {still_s:.0f} s; its console:\n{_last(directory)}") from None
            raise TimeoutError(f"the VM's job is not over after {timeout_s:.0f} s; its console:\n{_last(directory)}") from None
        if line is not None and "exit" in line:
            return int(line["exit"])
        if line is not None and "file" in line:
            (CHECKOUT / line["file"]).write_bytes(base64.b64decode(line["data"]))
        elif line is not None:
            tell(line)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)
    raise Died(f"QEMU ended before the job did (exit code {process.returncode}):\n{_last(directory)}")


class _Lines:
    """The guest's lines as they come."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._data = b""

    def read(self, deadline: float) -> dict[str, Any] | None:
        """The next one; None when QEMU has closed the channel. Raises: TimeoutError when the deadline has passed."""
        while b"\n" not in self._data:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._channel], [], [], left)[0]:
                raise TimeoutError
            try:
                data = self._channel.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._data += data
        text, _, self._data = self._data.partition(b"\n")
        line: dict[str, Any] = json.loads(text)
        return line


def _last(directory: Path) -> str:
    found = [path.read_text(errors="replace") for path in (directory / "qemu.log", directory / "console.log") if path.exists()]
    return "\n".join(f"  {line}" for line in "\n".join(found).splitlines()[-25:] if line.strip()) or "  (it said nothing)"
