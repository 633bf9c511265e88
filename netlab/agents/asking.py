"""One question of a probe or a preStop hook: exec in the container, or TCP and HTTP from the pod's node, as the kubelet asks.

What counts as success, and the words for what does not, are the kubelet's. Refuses to know how often one asks and what follows.
Source: kubernetes pkg/probe/{http,tcp,exec}.
"""

import os
import socket
import ssl
from ipaddress import ip_address

from netlab.agents.commands import run
from netlab.kernel import context
from netlab.kernel.namespaces import entered
from netlab.model import Probe

USER_AGENT = "kube-probe/1.36"
MOST_BYTES = 10 * 1024
"""The kubelet reads no more of an answer."""


def ask(node: str, place: context.Place | None, address: str, port: int, probe: Probe, timeout_s: float) -> tuple[bool, str]:
    """(success, what was wrong). `node`: a path of the node's namespace; `place`: where a command runs."""
    if place is not None:
        return _exec(place, probe, timeout_s)
    host = probe.host or address
    try:
        ip_address(host)
    except ValueError:
        if host != "localhost":
            return False, f"dial tcp: lookup {host}: no such host (the lab's nodes know addresses only)"
        host = "127.0.0.1"
    try:
        with _connected(node, host, port, timeout_s) as sock:
            return (True, "") if probe.http_path is None else _get(sock, host, port, probe)
    except TimeoutError:
        return False, f"{_what(probe, host, port)}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
    except OSError as error:
        return False, f"{_what(probe, host, port)}: {(error.strerror or str(error)).lower()}"


def _exec(place: context.Place, probe: Probe, timeout_s: float) -> tuple[bool, str]:
    done = run(place, probe.command, "", timeout_s)
    if done["timed_out"]:
        return False, f"command timed out: {list(probe.command)!r} timed out after {timeout_s:g}s"
    text = (done["stdout"] + done["stderr"]).strip()[:200]
    return done["returncode"] == 0, text or f"command ended with exit code {done['returncode']}"


def _connected(node: str, host: str, port: int, timeout_s: float) -> socket.socket:
    """A socket of the node: the packets' source is the node's own address."""
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(fd):
            sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    finally:
        os.close(fd)
    try:
        sock.settimeout(timeout_s)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _get(sock: socket.socket, host: str, port: int, probe: Probe) -> tuple[bool, str]:
    """Success is a status from 200 to 399. A certificate is not verified."""
    if probe.scheme == "HTTPS":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        sock = tls.wrap_socket(sock)
    own = {name.lower() for name, _ in probe.headers}
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    defaults = (("Host", where), ("User-Agent", USER_AGENT), ("Accept", "*/*"), ("Connection", "close"))
    headers = [*((name, value) for name, value in defaults if name.lower() not in own), *probe.headers]
    path = probe.http_path or "/"
    head = f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1\r\n"
    sock.sendall((head + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n").encode())
    with sock.makefile("rb") as answer:
        status = answer.readline(256).split()
        answer.read1(MOST_BYTES)
    if len(status) < 2 or not status[1].isdigit() or len(status[1]) > 9:
        return False, f"{_what(probe, host, port)}: malformed HTTP response"
    code = int(status[1])
    return 200 <= code < 400, f"HTTP probe failed with statuscode: {code}"


def _what(probe: Probe, host: str, port: int) -> str:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if probe.http_path is None:
        return f"dial tcp {where}: connect"
    return f'Get "{probe.scheme.lower()}://{where}{probe.http_path}"'
