"""What docs/isolation.md promises, sentence by sentence."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import netlab
from netlab.errors import InputError, MachineError
from netlab.kernel.privileges import GIVEN_UP
from netlab.lab import directory
from tests.live.caller import state

NOBODY = 65534
PAGE = Path(__file__).parents[2] / "docs" / "isolation.md"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture(scope="module")
def lab() -> Iterator[netlab.Lab]:
    with netlab.up(manifests=["manifests/kubia.yaml"]) as made:
        yield made


def inside(lab: netlab.Lab, script: str, target: str = "pod/client") -> str:
    return lab.exec(target, [sys.executable, "-c", textwrap.dedent(script)], check=True).stdout


def test_a_pod_has_no_network_but_its_own(lab: netlab.Lab) -> None:
    name = f"netlab-test-{os.getpid()}"
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        abstract.bind("\0" + name)
        abstract.listen()
        script = f"""
            import socket
            print(sorted(name for _, name in socket.if_nameindex()))
            for family, address in ((socket.AF_INET, ("127.0.0.1", {tcp.getsockname()[1]})), (socket.AF_UNIX, "\\0{name}")):
                with socket.socket(family) as sock:
                    print(sock.connect_ex(address) != 0)
        """
        # The control: from here both can be reached.
        for family, address in ((socket.AF_INET, tcp.getsockname()), (socket.AF_UNIX, "\0" + name)):
            with socket.socket(family) as sock:
                assert sock.connect_ex(address) == 0
        assert inside(lab, script).split("\n")[:3] == ["['eth0', 'lo']", "True", "True"]


def test_mounts_stay_inside(lab: netlab.Lab) -> None:
    before = state()["mounts"]
    seen = lab.exec(
        "pod/client", ["sh", "-c", "mount -t tmpfs netlab-test /mnt && grep -c netlab-test /proc/self/mountinfo"], check=True
    )
    assert seen.stdout.strip() == "1"
    assert state()["mounts"] == before
    assert lab.exec("pod/client", ["grep", "-c", "netlab-test", "/proc/self/mountinfo"]).stdout.strip() == "0"


def test_processes_of_the_machine_are_not_seen(lab: netlab.Lab) -> None:
    mark = f"netlab-isolation-{os.getpid()}"
    script = """
        import os
        for name in os.listdir("/proc"):
            if name.isdigit():
                print(open(f"/proc/{name}/cmdline").read(), open(f"/proc/{name}/environ").read())
    """
    with subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], "MARK": mark}) as outside:
        try:
            seen = inside(lab, script)
            assert "netlab" in seen  # the control: it sees the lab's own
            assert mark not in seen
        finally:
            outside.kill()


def test_what_lies_under_proc(lab: netlab.Lab) -> None:
    """The shell's own /proc goes with it: what remains is listed by its builtins alone."""
    shown = lab.exec("pod/client", ["sh", "-c", "umount /proc && cd /proc && echo [0-9]*"], check=True).stdout.split()
    if os.geteuid() == 0:
        assert shown == ["[0-9]*"], "nothing is there"
    else:
        assert str(os.getpid()) in shown
    assert "1" in lab.exec("pod/client", ["sh", "-c", "cd /proc && echo [0-9]*"], check=True).stdout.split()


def test_a_socket_with_a_path_is_a_file(lab: netlab.Lab, tmp_path: Path) -> None:
    """Not isolated, and said so."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "sock"))
        sock.listen()
        script = f"import socket; print(socket.socket(socket.AF_UNIX).connect_ex({str(tmp_path / 'sock')!r}))"
        assert inside(lab, script).strip() == "0"


@as_root
def test_a_forwarded_port_is_everybodys(lab: netlab.Lab) -> None:
    """Not isolated, and said so."""
    command = [sys.executable, "-m", "netlab", "port-forward", "--lab", lab.name, "svc/kubia", "0:80"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as forwarding:
        try:
            assert forwarding.stdout is not None
            port = re.findall(r"127\.0\.0\.1:(\d+)", forwarding.stdout.readline())[0]
            asked = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/', timeout=20).read().decode())"
            assert "You've hit kubia-" in _as_nobody(asked)
        finally:
            forwarding.terminate()


def test_the_labs_root_is_its_user(lab: netlab.Lab, tmp_path: Path) -> None:
    script = f"import os; print(os.getuid()); open({str(tmp_path / 'made')!r}, 'w').close()"
    assert inside(lab, script).strip() == "0"
    assert (tmp_path / "made").stat().st_uid == os.geteuid()
    if os.geteuid():
        done = lab.exec("pod/client", [sys.executable, "-c", "open('/etc/netlab-test', 'w')"])
        assert done.returncode == 1 and "Permission denied" in done.stderr


def test_capabilities_are_given_up(lab: netlab.Lab) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    unwanted = sum(1 << number for number in GIVEN_UP.values() if number <= last)
    agents = Path(f"/proc/{lab.pid}/task/{lab.pid}/children").read_text().split()
    assert agents
    for pid in (lab.pid, *agents):
        status = Path(f"/proc/{pid}/status").read_text()
        for field in ("CapPrm", "CapEff", "CapBnd"):
            (value,) = re.findall(rf"^{field}:\t(\w+)$", status, re.MULTILINE)
            assert int(value, 16) & unwanted == 0, (pid, field)
            assert int(value, 16) >> 21 & 1  # the control: CAP_SYS_ADMIN, which joining namespaces takes


def _as_nobody(code: str) -> str:
    """What a Python program prints as another user, with netlab importable from a copy that it may read."""
    done = subprocess.run(
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "/usr/bin/python3", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin"},
        check=False,
    )
    return done.stdout + done.stderr


@as_root
def test_another_user_is_kept_out(lab: netlab.Lab) -> None:
    place = directory.base(os.environ) / lab.name
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "api").stat().st_mode & 0o777 == 0o600
    code = f"""
        import os, socket
        def tried(what):
            try:
                what()
            except PermissionError:
                return "refused"
            return "let in"
        print(tried(lambda: socket.socket(socket.AF_UNIX).connect({str(place / "api")!r})))
        print(tried(lambda: os.listdir({str(place)!r})))
        print(tried(lambda: os.open("/proc/{lab.pid}/ns/net", os.O_RDONLY)))
        print(tried(lambda: os.listdir("/proc/{lab.pid}/fd")))
        print(tried(lambda: os.kill({lab.pid}, 9)))
    """
    assert _as_nobody(code).split() == ["refused"] * 5
    assert lab.probe("pod/client", "svc/kubia").verdict == "pass"


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "netlab").mkdir(mode=0o777)
    (tmp_path / "netlab").chmod(0o777)
    tmp_path.chmod(0o700)
    with pytest.raises(MachineError, match="not a private directory"):
        directory.base({"XDG_RUNTIME_DIR": str(tmp_path)})
    (tmp_path / "netlab").chmod(0o700)
    (tmp_path / "linked").mkdir(mode=0o700)
    (tmp_path / "linked" / "netlab").symlink_to(tmp_path / "netlab")
    with pytest.raises(MachineError, match="not a private directory"):
        directory.base({"XDG_RUNTIME_DIR": str(tmp_path / "linked")})
    assert directory.base({"XDG_RUNTIME_DIR": str(tmp_path)}) == tmp_path / "netlab"


HOSTILE = ("../../../etc/x", "a/b", "..", ".", "a b", "a\nb", "a;reboot", "$(reboot)", "-A", "--help", "a\0b", "", "x" * 300, "ü")
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "fine"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}


def manifest(path: tuple[str | int, ...], value: str) -> dict[str, object]:
    """The pod with one string changed."""
    pod = json.loads(json.dumps(POD))
    pod["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]
    pod["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
    pod["spec"]["containers"][0]["ports"] = [{"name": "http", "containerPort": 80}]
    pod["spec"]["hostname"] = "host"
    at = pod
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    if path == ("spec", "volumes", 0, "name"):
        pod["spec"]["containers"][0]["volumeMounts"][0]["name"] = value
    return dict(pod)


NAMED: tuple[tuple[str | int, ...], ...] = (
    ("metadata", "name"),
    ("metadata", "namespace"),
    ("spec", "containers", 0, "name"),
    ("spec", "containers", 0, "ports", 0, "name"),
    ("spec", "volumes", 0, "name"),
    ("spec", "hostname"),
)
EMPTY_IS_ABSENT = {("metadata", "namespace"), ("spec", "containers", 0, "ports", 0, "name"), ("spec", "hostname")}


@pytest.mark.parametrize("path", NAMED, ids=lambda path: ".".join(map(str, path)))
def test_hostile_names_are_refused(lab: netlab.Lab, path: tuple[str | int, ...]) -> None:
    taken = []
    for name in HOSTILE:
        if name == "" and path in EMPTY_IS_ABSENT:
            continue
        with contextlib.suppress(InputError):
            lab.apply([manifest(path, name)])
            taken.append(name)
            lab.delete("pod", "fine")
    assert taken == []
    for name in HOSTILE:
        with pytest.raises(InputError):
            directory.check_name(name)
    lab.apply([manifest(path, {"namespace": "default"}.get(str(path[-1]), "fine"))])  # the control
    lab.delete("pod", "fine")


@pytest.mark.parametrize("key", ["../x", "a/b", "..", "."])
def test_hostile_keys_are_refused(lab: netlab.Lab, key: str) -> None:
    with pytest.raises(InputError):
        lab.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {key: "x"}}])


def test_no_shell_reads_a_command(lab: netlab.Lab, tmp_path: Path) -> None:
    trap = f"; touch {tmp_path / 'trapped'} #"
    pod = json.loads(json.dumps(POD))
    pod["metadata"]["name"] = "quoting"
    pod["spec"]["containers"][0]["command"] = ["echo", trap, "$(touch x)", "`id`"]
    pod["spec"]["restartPolicy"] = "Never"
    lab.apply([pod])
    said = subprocess.run(
        [sys.executable, "-m", "netlab", "logs", "--lab", lab.name, "quoting"], capture_output=True, text=True, check=True
    ).stdout
    assert said.strip() == f"{trap} $(touch x) `id`"
    assert not (tmp_path / "trapped").exists()
    lab.delete("pod", "quoting")


def test_a_program_has_its_users_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not isolated, and said so: it reads what its user may read, and it can end the lab."""
    secret = tmp_path / "secret"
    secret.write_text("mine")
    secret.chmod(0o600)
    runtime = tmp_path / "runtime"
    runtime.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with netlab.up(manifests=["manifests/kubia.yaml"]) as made:
        assert made.exec("pod/client", ["cat", str(secret)], check=True).stdout == "mine"
        with contextlib.suppress(netlab.errors.NetlabError):
            down = ["env", f"XDG_RUNTIME_DIR={runtime}", sys.executable, "-m", "netlab", "down", made.name]
            made.exec("pod/client", down)
        with pytest.raises(netlab.errors.NetlabError):
            made.probe("pod/client", "svc/kubia")


def test_every_test_that_the_page_names_is_here() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text()))
    assert named
    assert named <= set(globals())
