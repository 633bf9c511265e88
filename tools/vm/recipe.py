"""What the VM's image is made of: Debian's packages, netlab's own set-up script, the Python packages of the tests.

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
MADE_OF = ("tools/vm/build.sh", "tools/vm/recipe.py", "tools/vm/initramfs.py", "tools/setup.sh")
DISK_MIB = 1536

Run = Callable[[list[str], str], None]
"""Runs a command, which the second argument names for people; raises where it fails."""


def key() -> str:
    """Sixteen hexadecimal digits."""
    digest = hashlib.sha256("\n".join(requirements()).encode())
    for name in MADE_OF:
        digest.update((CHECKOUT / name).read_bytes())
    return digest.hexdigest()[:16]


def requirements() -> list[str]:
    """What tests import, as pyproject.toml says; checkers of style and types are left out."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    checkers = ("mypy", "ruff", "import-linter", "types-")
    every = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    return sorted(one for one in every if not one.startswith(checkers))


def make(root: Path, out: Path, run: Run, environment: Mapping[str, str]) -> None:
    """`vmlinuz`, `initramfs` and `disk` in `out`, from a system made in `root`."""
    mirror = environment.get("NETLAB_VM_MIRROR") or _mirror()
    run(["sh", str(HERE / "build.sh"), str(root), SUITE, KERNEL, *mirror.split()], "debootstrap and set-up")
    run(_pip(root), "pip")
    # Ends with 1 for the files that some packages carry for other versions of Python.
    compiled = ["chroot", str(root), "python3", "-m", "compileall", "-q", "-j", "0", "/opt/packages"]
    run(["sh", "-c", '"$@" || [ $? = 1 ]', "sh", *compiled], "compileall")
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
    target = ["--target", str(root / "opt/packages"), "--python-version", PYTHON, "--only-binary", ":all:"]
    platforms = ["--platform", "manylinux2014_x86_64", "--platform", "manylinux_2_28_x86_64"]
    return [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        *target,
        *platforms,
        *requirements(),
    ]
