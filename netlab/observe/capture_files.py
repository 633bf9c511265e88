"""Where a capture is written: one descriptor, or a row of files of which the oldest go (`tcpdump -C, -G, -W`).

Decides when the next file begins and what it is called: lab.pcapng gives lab_00001.pcapng, lab_00002.pcapng, as with dumpcap.
"""

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Rotation:
    """`bytes_` and `seconds`: when a file is full (None: never by that). `files`: how many are kept (None: all)."""

    path: Path
    bytes_: int | None = None
    seconds: float | None = None
    files: int | None = None

    def name(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.stem}_{number:05d}{self.path.suffix}")


@dataclass(slots=True)
class Output:
    """Takes bytes. `fd` is the file or pipe in use; with a `rotation` it changes. Every write is whole, or raises OSError."""

    fd: int
    rotation: Rotation | None = None
    number: int = 0
    written: int = 0
    opened: float = field(default_factory=time.monotonic)

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        self.written += len(view)
        while view:
            view = view[os.write(self.fd, view) :]

    @property
    def is_full(self) -> bool:
        if self.rotation is None:
            return False
        by_size = self.rotation.bytes_ is not None and self.written >= self.rotation.bytes_
        return by_size or (self.rotation.seconds is not None and time.monotonic() - self.opened >= self.rotation.seconds)

    def begin(self) -> None:
        """Open the next file, and remove the one that is too old. Does nothing without a rotation."""
        if self.rotation is None:
            return
        self.number += 1
        fd = os.open(self.rotation.name(self.number), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self.close()
        self.fd, self.written, self.opened = fd, 0, time.monotonic()
        if self.rotation.files is not None and self.number > self.rotation.files:
            with contextlib.suppress(FileNotFoundError):  # somebody took it away already
                self.rotation.name(self.number - self.rotation.files).unlink()

    def close(self) -> None:
        if self.rotation is not None and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
