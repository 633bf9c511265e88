"""How `capture` and `tcpdump` get at a lab's packets: a child joins the lab and records; what people read is printed out here.

Recording needs root of the lab's user namespace; tcpdump, which prints, must not be root there (with a single uid it fails to
change its user, `-Z root` or not). So the child records into a pipe and tcpdump reads it on this side of the namespace. The child
keeps the lab's namespaces alive, so it ends with this process and with the lab, whichever goes first.
"""

import contextlib
import ctypes
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

from netlab.cli import output
from netlab.errors import InputError, KernelError, LabGone, MachineError, NetlabError
from netlab.joining import PR_SET_PDEATHSIG
from netlab.kernel import namespaces
from netlab.observe import capture, tcpdump
from netlab.observe.annotating import Annotator
from netlab.observe.capture import Captured, Place, Wanted
from netlab.observe.capture_files import Rotation

if TYPE_CHECKING:
    from netlab.client import Lab

_NUMBERED = re.compile(r" {0,4}(\d+) {2}(.*)", re.DOTALL)
_UNKNOWN_INTERFACE = re.compile(r"(^|\s)\?\s+(?=(?:In|Out|P|M|B)\s)")
_CHATTER = ("reading from file", "Warning: interface names")


def run(
    lab: "Lab",
    targets: Sequence[str],
    file: str | None,
    expression: str,
    count: int | None,
    seconds: float | None,
    namespace: str = "default",
    comments: bool = True,
    rotation: "Limits | None" = None,
) -> int:
    """Record the targets (all pods, nodes and hosts without one) into a file, or print what passes."""
    program = tcpdump.compile_filter(expression)
    wanted = Wanted(program, count, seconds, comment=f"netlab capture of lab {lab.name}: {expression or 'everything'}")
    places = places_of(lab, targets or everything(lab), namespace)
    if rotation is not None:
        if file in (None, "-"):
            raise InputError("-C, -G and -W divide files: give one with -w FILE.pcapng")
        wanted = replace(wanted, rotation=Rotation(Path(str(file)), rotation.bytes_, rotation.seconds, rotation.files))
    if file is not None and comments:
        wanted, places = annotated(lab, wanted, places)
    if file is None:
        done = _printed(lab, places, replace(wanted, format="sll2"), ("-n",), {})
    else:
        with contextlib.ExitStack() as stack:
            try:
                if wanted.rotation is not None:
                    out = -1
                    wanted.rotation.name(1).open("wb").close()  # the recording child, which opens it, could say less of why not
                else:
                    out = sys.stdout.fileno() if file == "-" else stack.enter_context(open(file, "wb")).fileno()
            except OSError as error:
                raise InputError(f"{file}: {error.strerror}") from None
            if out >= 0 and os.isatty(out):
                raise InputError("a capture is binary: pipe it (`-w - | wireshark -k -i -`) or give a file")
            with _patient():
                done = _start(lab, places, wanted, out, ()).finish()
    lost = f", {done.dropped} more were lost because they came too fast" if done.dropped else ""
    where = f" in {file}" if file not in (None, "-") else ""
    if wanted.rotation is not None:
        where = f" in {wanted.rotation.name(1)} and what follows"
    output.message(f"{output.number_of(done.packets, 'packet')}{where}{lost}")
    return 0


def run_tcpdump(lab: "Lab", target: str, arguments: Sequence[str], namespace: str = "default") -> int:
    """tcpdump on our own capture, for labs whose single uid does not let tcpdump capture by itself."""
    wish = tcpdump.split(arguments)
    if not wish.captures:
        return subprocess.call([tcpdump.program(), *arguments])
    places = places_of(lab, (target,), namespace)
    wanted = Wanted(
        tcpdump.compile_filter(wish.expression),
        wish.count,
        device=wish.interface or "eth0",
        direction=wish.direction,
        snap_bytes=wish.snap_bytes,
        format="sll2" if wish.interface == "any" else "pcap",
    )
    output.message(f"listening on {wanted.device} of {places[0].name}")
    done = _printed(lab, places, wanted, wish.shown, {f"{place.name}:": "" for place in places})
    output.message(
        f"{output.number_of(done.packets, 'packet')} captured\n{output.number_of(done.dropped, 'packet')} dropped by kernel"
    )
    return 0


@dataclass(frozen=True, slots=True)
class Limits:
    """When the next file begins, and how many are kept."""

    bytes_: int | None
    seconds: float | None
    files: int | None


def annotated(lab: "Lab", wanted: Wanted, places: Sequence[Place]) -> tuple[Wanted, tuple[Place, ...]]:
    """The same with the lab's names: of addresses, in packets' comments, and with what each place is."""
    from netlab.lab.naming import names_of  # pure: it reads the Cluster that the API gives

    cluster = lab.cluster()
    names = names_of(cluster)
    pods = {str(pod.ref): pod for pod in cluster.pods.values()}
    known = {place.name: place.netns for place in places}
    missing = [f"node/{name}" for name in cluster.nodes if f"node/{name}" not in known]
    known |= {place.name: place.netns for place in places_of(lab, missing, "default")}
    nodes = tuple(Place(f"node/{name}", known[f"node/{name}"]) for name in cluster.nodes)

    def described(place: Place) -> Place:
        pod = pods.get(place.name)
        mine = ", ".join(str(address) for address, owner in names.owners.items() if owner == place.name)
        return replace(place, description=f"{mine} on {pod.node}" if pod is not None else mine)

    # Wireshark takes names as host names: no slashes.
    hosts = {address: ".".join(reversed(owner.split("/"))) for address, owner in names.owners.items()}
    hosts |= {
        address: f"{name.split('/')[2].partition(':')[0]}.{name.split('/')[1]}.svc"
        for (address, _, _), name in names.frontends.items()
        if address is not None and name.count("/") == 2
    }
    return replace(wanted, names=hosts, annotator=Annotator(names), nodes=nodes), tuple(map(described, places))


def everything(lab: "Lab") -> list[str]:
    """Every pod, node and host of the lab, as targets."""
    cluster = lab.cluster()
    pods = [str(pod.ref) for pod in cluster.pods.values() if pod.addresses and not pod.spec.host_network]
    return [*(f"node/{name}" for name in cluster.nodes), *(f"host/{host.name}" for host in cluster.topology.hosts), *pods]


def places_of(lab: "Lab", targets: Sequence[str], namespace: str) -> tuple[Place, ...]:
    """Where the targets live: each place is opened by the number of the holder's descriptor."""
    found: dict[str, Place] = {}
    for target in targets:
        place = lab.verb("place", target=target, namespace=namespace)
        found[str(place["fd"])] = Place(place["target"], str(place["fd"]))
    return tuple(found.values())


def _printed(lab: "Lab", places: Sequence[Place], wanted: Wanted, shown: Sequence[str], renamed: Mapping[str, str]) -> Captured:
    """Record into a pipe, and show what tcpdump makes of it, interfaces by name. Raises InputError with tcpdump's words."""
    cooked = wanted.format == "sll2"
    command = [tcpdump.program(), "-r", "-", *(("-l", "--number") if cooked else ()), *shown]
    names_read, names_write = os.pipe()
    with _patient(), os.fdopen(names_read) as names:
        reader = subprocess.Popen(  # in a group of its own, where Ctrl-C does not reach it: it ends when the recording does
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if cooked else None,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert reader.stdin is not None and reader.stderr is not None
        try:
            inherited = (names_read, reader.stderr.fileno(), *(() if reader.stdout is None else (reader.stdout.fileno(),)))
            wanted = replace(wanted, names_fd=names_write if cooked else None)
            recorder = _start(lab, places, wanted, reader.stdin.fileno(), inherited)
        finally:
            reader.stdin.close()
            os.close(names_write)
        heard = reader.stdout is None or _show(reader.stdout, names, renamed)
        if not heard:
            reader.terminate()  # its end of the pipe closes, and the recording ends with it
        complaints = "".join(line for line in reader.stderr if not line.startswith(_CHATTER))
        done = recorder.finish()
    code = reader.wait()
    if not heard:
        raise BrokenPipeError
    if not done.begun:  # there was nothing to read, which tcpdump takes for a file cut short
        return done
    if code:
        raise InputError(complaints.strip() or f"tcpdump ended with {code}")
    sys.stderr.write(complaints)
    return done


def _show(lines: IO[str], names: IO[str], renamed: Mapping[str, str]) -> bool:
    """Print tcpdump's lines with the names of the interfaces, which it cannot know: `names` has one line for each packet.

    False when nobody reads on (`| head`).
    """
    read, name, width = 0, "", 5
    for line in lines:
        found = _NUMBERED.match(line)
        if found:
            while read < int(found[1]):
                read, name = read + 1, names.readline().strip()
            for prefix, instead in renamed.items():
                name = instead + name.removeprefix(prefix) if name.startswith(prefix) else name
            width = max(width, len(name))
            line = _UNKNOWN_INTERFACE.sub(rf"\g<1>{name:<{width}} ", found[2], count=1)
        try:
            print(line, end="", flush=True)
        except BrokenPipeError:
            return False
    return True


# ---------------------------------------------------------------- the child that records


@dataclass(frozen=True, slots=True)
class _Recorder:
    """A child that records. `report` is where it says, as one JSON object, how it ended."""

    pid: int
    report: IO[str]

    def finish(self) -> Captured:
        """Wait for its end. Raises what went wrong there."""
        text = self.report.read()
        self.report.close()
        os.waitpid(self.pid, 0)
        if not text:
            raise KernelError("the recording process died")
        found = json.loads(text)
        if "error" in found:
            raise {3: MachineError, 2: LabGone}.get(found["code"], KernelError)(found["error"])
        if found["gone"]:
            output.message("the lab is gone, and the capture ends with it")
        return Captured(found["packets"], found["dropped"], tuple(found["interfaces"]), found["begun"])


def _start(lab: "Lab", places: Sequence[Place], wanted: Wanted, out_fd: int, unused: Sequence[int]) -> _Recorder:
    """Fork the child that joins the lab and records into `out_fd`."""
    report_read, report_write = os.pipe()
    sys.stdout.flush()
    parent = os.getpid()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))  # until both sides have their handlers
    pid = os.fork()
    if pid:
        os.close(report_write)
        signal.signal(signal.SIGTERM, lambda number, _: _pass_on(pid, number))
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return _Recorder(pid, os.fdopen(report_read))
    try:
        signal.signal(signal.SIGINT, _interrupted)
        signal.signal(signal.SIGTERM, _interrupted)
        for fd in (report_read, *unused):
            os.close(fd)
        os.write(report_write, json.dumps(_record(lab.pid, parent, places, wanted, out_fd, before)).encode())
    finally:
        os._exit(0)


def _pass_on(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _interrupted(number: int, frame: FrameType | None) -> None:
    """End in good order, once: a second signal (to the group, and passed on) must not disturb the end of the file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _record(
    holder: int, parent: int, places: Sequence[Place], wanted: Wanted, out_fd: int, signals: Iterable[int]
) -> dict[str, object]:
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)  # not earlier: from here on an interrupt is an answer, too
        try:
            alive = os.pidfd_open(holder)  # readable when the holder has ended
            opened = {
                place.netns: os.open(f"/proc/{holder}/fd/{place.netns}", os.O_RDONLY | os.O_CLOEXEC)
                for place in (*places, *wanted.nodes)
            }
        except (FileNotFoundError, ProcessLookupError):
            raise LabGone("the lab is gone") from None
        _join_user_namespace(holder)
        _end_with(parent)
        done = capture.capture(places, lambda netns: os.dup(opened[netns]), out_fd, wanted, stop_fd=alive)
    except NetlabError as error:
        return {"error": str(error), "code": error.exit_code}
    except OSError as error:
        return {"error": f"the capture could not go on: {error}", "code": 1}
    except KeyboardInterrupt:  # before the first packet could come
        return {"packets": 0, "dropped": 0, "interfaces": (), "begun": False, "gone": False}
    gone = bool(select.select([alive], [], [], 0)[0])
    return {"packets": done.packets, "dropped": done.dropped, "interfaces": done.interfaces, "begun": done.begun, "gone": gone}


def _end_with(parent: int) -> None:
    """Be killed when the parent dies. To be asked for when the namespaces are joined: the kernel forgets it at a change of
    credentials.
    """
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before that
        os._exit(0)


def _join_user_namespace(holder: int) -> None:
    """Become root of the lab's network namespaces, with an empty one as home: there is no way back to the caller's.

    The mount namespace is not joined: /proc must go on showing this process.
    """
    theirs = Path(f"/proc/{holder}/ns/user")
    if theirs.readlink() != Path("/proc/self/ns/user").readlink():
        fd = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
        namespaces.setns(fd, namespaces.CLONE_NEWUSER)
        os.close(fd)
        namespaces.unshare(namespaces.CLONE_NEWNET)


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Ctrl-C is for the recording child, which then ends in good order; this process waits for its report.

    SIGTTOU is ignored for tcpdump, which inherits that: its group is in the background, and it may print all the same.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTTOU)}
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
