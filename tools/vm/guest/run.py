"""Runs the job inside the VM and tells the outside about it: JSON lines through a virtio port.

Lines out: {"hello": KERNEL} first, {"out": TEXT} for what the command prints, {"say": ANYTHING} for each line that the command
writes to the file descriptor named in NETLAB_VM_SAY, {"exit": CODE} last.
"""

import base64
import json
import os
import platform
import pwd
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

JOB = Path("/job")
PORT = "netlab"


def port() -> Path:
    """The device of the virtio port of our name (without udev there is no link in /dev/virtio-ports)."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for name in Path("/sys/class/virtio-ports").glob("*/name"):
            if name.read_text().strip() == PORT:
                return Path("/dev") / name.parent.name
        time.sleep(0.05)
    sys.exit("netlab-vm: no virtio port")


def main() -> None:
    """Runs /job/job.json: {"argv": [...], "user": NAME, "env": {...}}, in the checkout."""
    with port().open("wb", buffering=0) as channel:

        def tell(**line: Any) -> None:
            data = json.dumps(line).encode() + b"\n"
            while data:
                data = data[channel.write(data) or 0 :]

        tell(hello=platform.release())
        install()
        job = json.loads((JOB / "job.json").read_text())
        tell(exit=run(job, tell))


def install() -> None:
    """The checkout is where the Vagrantfile has it, and where the image's virtual environment looks for netlab."""
    shutil.rmtree("/vagrant")
    Path("/vagrant").symlink_to(JOB / "checkout")


def run(job: dict[str, Any], tell: Callable[..., None]) -> int:
    """The command's exit code; its words and its report lines are told as they come."""
    user = pwd.getpwnam(job["user"])
    runtime = Path(f"/run/user/{user.pw_uid}")
    runtime.mkdir(mode=0o700, exist_ok=True)
    subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", str(runtime), str(JOB / "checkout")], check=True)
    said, say = os.pipe()
    environment = {
        "PATH": f"/opt/netlab/bin:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "HOME": user.pw_dir, "USER": user.pw_name,
        "XDG_RUNTIME_DIR": str(runtime), "NETLAB_VM_SAY": str(say),
        "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/opt/wheels", **job["env"],
    }  # fmt: skip
    process = subprocess.Popen(
        job["argv"], cwd=JOB / "checkout", env=environment, pass_fds=(say,),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        user=user.pw_uid, group=user.pw_gid, extra_groups=[],
    )  # fmt: skip
    os.close(say)
    assert process.stdout is not None
    with os.fdopen(said, "rb", buffering=0) as lines:
        forward(process.stdout, lines, tell)
    code = process.wait()
    for path in job.get("bring", ()):
        file = JOB / "checkout" / path
        if file.is_file():
            tell(file=path, data=base64.b64encode(file.read_bytes()).decode())
    return code if code >= 0 else 128 - code


def forward(output: IO[bytes], lines: IO[bytes], tell: Callable[..., None]) -> None:
    """Until the command and its children have closed what they print to."""
    with selectors.DefaultSelector() as waiting:
        rests = {"out": b"", "say": b""}
        waiting.register(output, selectors.EVENT_READ, "out")
        waiting.register(lines, selectors.EVENT_READ, "say")
        while waiting.get_map():
            for key, _ in waiting.select():
                data = os.read(key.fd, 65536)
                if not data:
                    waiting.unregister(key.fileobj)
                *whole, rests[key.data] = (rests[key.data] + data).split(b"\n")
                for line in [*whole, rests[key.data]] if not data and rests[key.data] else whole:
                    told = {"out": line.decode(errors="replace")} if key.data == "out" else {"say": json.loads(line)}
                    tell(**told)


if __name__ == "__main__":
    main()
