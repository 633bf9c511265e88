"""What the VM's image is made of: Debian's packages, and what netlab's own provisioner installs.

Decides: the steps of a build, and the key of what they make: it changes when a step or something that goes in does. Refuses to
know: where images are kept, who may build them.
"""

import hashlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.vm import initramfs

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]
SUITE, PYTHON = "bookworm", "3.11"
KERNEL = "linux-image-cloud-amd64"
"""Debian's kernel for virtual machines: it has ip_vs, netem and dummy as modules, and is half the size of the full one."""
MADE_OF = (
    "pyproject.toml", "tools/setup.sh", "tools/provision.sh", "tools/vm/build.sh", "tools/vm/recipe.py", "tools/vm/initramfs.py",
)  # fmt: skip
DISK_MIB = 1536

Run = Callable[[list[str], str], None]
"""Runs a command, which the second argument names for people; raises where it fails."""


def key() -> str:
    """Sixteen hexadecimal digits."""
    digest = hashlib.sha256()
    for name in MADE_OF:
        digest.update((CHECKOUT / name).read_bytes())
    return digest.hexdigest()[:16]


def requirements() -> list[str]:
    """What pyproject.toml asks for, and what pip builds netlab with: the VM has no network."""
    data = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    project = data["project"]
    return sorted(
        [*project["dependencies"], *project["optional-dependencies"]["dev"], *data["build-system"]["requires"], "wheel"]
    )


def make(root: Path, out: Path, run: Run, environment: Mapping[str, str]) -> None:
    """`vmlinuz`, `initramfs` and `disk` in `out`, from a system made in `root`."""
    mirror = environment.get("NETLAB_VM_MIRROR") or _mirror()
    run(_pip(root), "pip")
    run(["sh", str(HERE / "build.sh"), str(root), SUITE, KERNEL, *mirror.split()], "debootstrap and provisioning")
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (out / "initramfs").write_bytes(initramfs.build(root, kernel.name.partition("-")[2]))
    shutil.copy(kernel, out / "vmlinuz")
    run(["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(out / "disk"), f"{DISK_MIB}m"], "mke2fs")


def _mirror() -> str:
    """Where this machine's own apt gets Debian from; '' leaves it to debootstrap."""
    form = "$(REPO_URI) $(ORIGIN) $(CODENAME) $(COMPONENT)"
    try:
        shown = subprocess.run(["apt-get", "indextargets", "--format", form], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""
    rows = (line.split() for line in shown.splitlines())
    return next((row[0] for row in rows if row[1:] == ["Debian", SUITE, "main"]), "")


def _pip(root: Path) -> list[str]:
    """Wheels for the VM's Python, fetched by this one."""
    target = ["--dest", f"{root}.wheels", "--python-version", PYTHON, "--only-binary", ":all:"]
    platforms = ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"]
    return [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        *target,
        *platforms,
        *requirements(),
    ]
