"""The pipeline behind `capture` and `tcpdump`: a child joins the lab and records, this process writes the file or shows the lines.

    child in the lab --pcapng--> this process --pcap--> tcpdump -r - --text--> lines with the place and device of each packet

A program with threads cannot join a user namespace, so the child is forked before anything else. All descriptors that the child
needs (namespaces, the file) are opened before it joins.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO

from netlab.cli import output
from netlab.errors import InputError, KernelError, NetlabError
from netlab.kernel import context
from netlab.observe import capture, pcap, tcpdump

if TYPE_CHECKING:
    from netlab.client import Lab

NUMBERED = re.compile(r" *(\d+) +(.*)")


@dataclass(frozen=True, slots=True)
class Recording:
    """A child that records: its pid, and the pipe on which it says that it watches, or why it cannot."""

    pid: int
    said: int

    def await_ready(self) -> None:
        """Raises KernelError with the child's own words."""
        first = os.read(self.said, 1)
        if first != b"+":
            rest = b"".join(iter(lambda: os.read(self.said, 4096), b""))
            os.waitpid(self.pid, 0)
            raise KernelError((first + rest).decode() or "the capture ended before it began")

    def result(self) -> tuple[int, int]:
        """(packets recorded, packets lost), when the child has ended."""
        words = b"".join(iter(lambda: os.read(self.said, 4096), b"")).split()
        os.waitpid(self.pid, 0)
        if len(words) != 2 or not (words[0] + words[1]).isdigit():
            raise KernelError(b" ".join(words).decode() or "the capture was killed")
        return int(words[0]), int(words[1])


def record(lab: "Lab", targets: Sequence[str], out: int, wanted: capture.Wanted, namespace: str) -> Recording:
    """Start a child that records what passes the targets to `out`, which it owns from now on."""
    fds: dict[str, int] = {}
    for target in targets:
        place = lab.verb("place", target=target, namespace=namespace)
        fds[place["target"]] = os.open(f"/proc/{lab.pid}/fd/{place['fd']}", os.O_RDONLY | os.O_CLOEXEC)
    places = [capture.Place(name, name) for name in fds]
    said, say = os.pipe()
    pid = os.fork()
    if pid:
        for fd in (say, *fds.values()):
            os.close(fd)
        return Recording(pid, said)
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        context.Holder(lab.pid).join()
        done = capture.capture(places, lambda name: os.dup(fds[name]), out, wanted, lambda: _tell(say, "+"))
        _tell(say, f"{done.packets} {done.dropped}")
        code = 0
    except (NetlabError, OSError) as error:
        _tell(say, str(error))
    finally:
        os._exit(code)


def _tell(fd: int, text: str) -> None:
    os.write(fd, text.encode())


def everything(lab: "Lab") -> list[str]:
    """Every pod, node and host."""
    cluster = lab.cluster()
    pods = [str(pod.ref) for pod in cluster.pods.values() if pod.addresses and not pod.spec.host_network]
    return [*(f"node/{name}" for name in cluster.nodes), *(f"host/{host.name}" for host in cluster.topology.hosts), *pods]


def to_file(lab: "Lab", targets: Sequence[str], file: str, wanted: capture.Wanted, namespace: str) -> int:
    """Record into a pcapng file, or to standard output for `-`."""
    try:
        out = os.dup(1) if file == "-" else os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    if os.isatty(out):
        raise InputError("a capture is binary: pipe it (`-w - | wireshark -k -i -`) or give a file")
    return _run(record(lab, targets, out, wanted, namespace), out, lambda: None)


def to_lines(lab: "Lab", targets: Sequence[str], wanted: capture.Wanted, namespace: str) -> int:
    """Record and print one line a packet: when, where, which way, and what tcpdump says of it."""
    program = tcpdump.program()
    source, sink = os.pipe()
    recording = record(lab, targets, sink, wanted, namespace)
    reader = os.fdopen(source, "rb")
    command = [program, "-r", "-", "-n", "-t", "-l", "--number"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=False) as shower:
        assert shower.stdin is not None and shower.stdout is not None
        heads: list[str] = []
        feeder = threading.Thread(target=_feed, args=(reader, shower.stdin, heads))
        printer = threading.Thread(target=_print, args=(shower.stdout, heads))

        def show() -> None:
            feeder.start()
            printer.start()

        code = _run(recording, sink, show, (feeder, printer))
    return code


def _run(recording: Recording, out: int, begin: Callable[[], None], threads: Sequence[threading.Thread] = ()) -> int:
    """Wait for a recording's end; Ctrl-C reaches the child itself, which ends the recording in good order."""
    os.close(out)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin()
    try:
        recording.await_ready()
        output.message("recording; Ctrl-C ends it")
        packets, lost = recording.result()
    finally:
        for thread in threads:
            thread.join()
    output.message(f"{packets} packets" + (f", {lost} lost because they came too fast" if lost else ""))
    return 0


def _feed(reader: BinaryIO, sink: BinaryIO, heads: list[str]) -> None:
    """pcapng in, pcap out; what is said before each packet's line goes into `heads`."""
    with reader, sink:
        sink.write(pcap.pcap_header(pcap.ETHERNET, capture.SNAP_BYTES))
        sink.flush()
        for name, time_ns, outgoing, data, length in pcap.read_packets(reader):
            when = datetime.fromtimestamp(time_ns / 1e9).strftime("%H:%M:%S.%f")
            heads.append(f"{when} {name:<28} {'>' if outgoing else '<'}")
            try:
                sink.write(pcap.pcap_record(time_ns, data, length))
                sink.flush()
            except BrokenPipeError:
                return


def _print(lines: BinaryIO, heads: list[str]) -> None:
    for line in lines:
        found = NUMBERED.match(line.decode(errors="replace").rstrip())
        if found and int(found[1]) <= len(heads):
            print(heads[int(found[1]) - 1], found[2], flush=True)


def as_tcpdump(lab: "Lab", target: str, arguments: Sequence[str], namespace: str) -> int:
    """tcpdump on our own capture, for labs whose single uid does not let tcpdump capture by itself; its exit code."""
    asked = tcpdump.split(arguments)
    command = [tcpdump.program(), "-r", "-", *asked.shown]
    if not asked.captures:
        return subprocess.run([tcpdump.program(), *arguments]).returncode
    wanted = capture.Wanted(tcpdump.compile_filter(asked.expression), asked.count, device=asked.interface or "eth0", format="pcap")
    wanted = replace(wanted, direction=asked.direction, snap_bytes=asked.snap_bytes)
    if asked.interface == "any":
        wanted = replace(wanted, format="sll2")
    source, sink = os.pipe()
    recording = record(lab, [target], sink, wanted, namespace)
    os.close(sink)
    with subprocess.Popen(command, stdin=source) as shower:
        os.close(source)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        recording.await_ready()
        print(f"listening on {wanted.device} of {target}", file=sys.stderr)
        packets, lost = recording.result()
    output.message(f"{packets} packets captured\n{lost} packets dropped by kernel")
    return shower.returncode
