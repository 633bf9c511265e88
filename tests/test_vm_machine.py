"""The test VM's outside with a QEMU that is none: what is told when it dies, falls silent, or is not there."""

import io
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tools.vm import machine, recipe
from tools.vm.image import Image, Unable, image

HELLO = {"hello": "6.1.0-test"}


def fake_qemu(directory: Path, program: str) -> None:
    """A program called as QEMU is, which finds the descriptor of its port in its arguments as `port`."""
    script = directory / machine.QEMU
    head = "import json, os, re, sys, time\nport = int(re.search(r'fd=(\\d+)', ' '.join(sys.argv))[1])\n"
    script.write_text(
        f"#!{sys.executable}\n{head}def tell(**line): os.write(port, json.dumps(line).encode() + b'\\n')\n{program}"
    )
    script.chmod(0o755)


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a job on a fake QEMU: (exit code, what was told)."""
    monkeypatch.setenv("NETLAB_VM_CACHE", str(tmp_path))
    monkeypatch.setattr(machine, "_accelerators", lambda: ("tcg",))
    monkeypatch.setattr(machine, "packed", lambda job: b"")

    def run(program: str, timeout_s: float = 5.0, still_s: float = 5.0) -> tuple[int, list[dict[str, Any]]]:
        fake_qemu(tmp_path, program)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        told: list[dict[str, Any]] = []
        there = Image(tmp_path, tmp_path, tmp_path)
        return machine.run(there, machine.Job(("true",)), told.append, timeout_s, still_s=still_s), told

    return run


def test_lines_come_out_and_the_exit_code_is_the_jobs(boot: Any) -> None:
    assert boot(f"tell(**{HELLO}); tell(out='a\\nb'); tell(exit=7); time.sleep(60)") == (7, [{"out": "a\nb"}])


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("sys.exit('no such machine')", "QEMU ended before the job did .exit code 1.(.|\n)*no such machine"),
        (f"tell(**{HELLO}); tell(out='x'); sys.exit(0)", "QEMU ended before the job did .exit code 0."),
        (f"tell(**{HELLO}); os.kill(os.getpid(), 9)", "QEMU ended before the job did .exit code -9."),
    ],
    ids=["at once", "after the boot", "killed"],
)
def test_a_qemu_that_ends_early_is_no_result(boot: Any, program: str, said: str) -> None:
    with pytest.raises(machine.Died, match=said):
        boot(program)


def test_a_vm_that_does_not_come_up(boot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine.BOOT_S, "tcg", 1)
    with pytest.raises(machine.Died, match="is not up after 1 s"):
        boot("time.sleep(60)")


def test_a_job_that_takes_too_long(boot: Any) -> None:
    with pytest.raises(TimeoutError, match="the VM's job is not over after 1 s"):
        boot(f"tell(**{HELLO}); time.sleep(60)", timeout_s=1)


def test_without_qemu_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unable, match="apt-get install -y --no-install-recommends qemu-system-x86"):
        machine.run(Image(tmp_path, tmp_path, tmp_path), machine.Job(("true",)), print, 1)


def test_an_ordinary_user_is_told_what_root_must_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Unable, match=r"needs root, once(.|\n)*-m tools.vm build --cache"):
        image({"NETLAB_VM_CACHE": str(tmp_path / "cache")})
    assert list(tmp_path.iterdir()) == []


def test_a_known_image_is_not_built_again(tmp_path: Path) -> None:
    place = tmp_path / recipe.key()
    place.mkdir()
    (place / "disk").touch()
    assert image({"NETLAB_VM_CACHE": str(tmp_path)}).disk == place / "disk"


def test_the_job_has_the_checkout_and_the_guests_programs() -> None:
    with tarfile.open(fileobj=io.BytesIO(machine.packed(machine.Job(("true",), bring=("x",))))) as archive:
        names = archive.getnames()
    assert {"guest/init", "guest/run.py", "job.json", "checkout/pyproject.toml", "checkout/netlab/plan.py"} <= set(names)
    assert not [name for name in names if "/.git/" in name or "__pycache__" in name]


def test_a_guest_that_tells_nothing_any_more_stands_still(boot: Any) -> None:
    silent = f"tell(**{HELLO}); tell(out='x'); time.sleep(60)"
    with pytest.raises(machine.StoodStill, match="told nothing for 1 s"):
        boot(silent, 30.0, 1.0)
    with pytest.raises(TimeoutError, match="not over after 1 s") as late:
        boot(silent, 1.0, 30.0)
    assert not isinstance(late.value, machine.StoodStill)
