"""Listening sockets of agents that answer for others, and the namespaces in which they are opened.

Decides what a socket must be told to serve one address, without ever waiting. Refuses to know what is answered.
"""

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from netlab.agents.answers import host_port
from netlab.errors import KernelError, MachineError
from netlab.model import Protocol
from netlab.ops import Listener

BACKLOG = 4096
IP_PKTINFO = 8  # linux/in.h; Python has no name for it
Ancillary = list[tuple[int, int, bytes]]


def listen_each(wanted: Sequence[tuple[str, Listener]], listen: Callable[[int, Listener], None]) -> list[str]:
    """Call `listen` for each with a descriptor of its namespace, which its path opens; a sentence for each that was refused."""
    problems = []
    for path, op in wanted:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            listen(fd, op)
        except (KernelError, MachineError) as error:
            problems.append(str(error))
        finally:
            os.close(fd)
    return problems


def listening_sockets(op: Listener) -> list[socket.socket]:
    """A socket for each address of the listener, opened in the namespace that this process is in. All or none.

    Raises: MachineError where the kernel has no such protocol, KernelError for any other refusal.
    """
    with ExitStack() as opened:
        sockets = [opened.enter_context(_listening(op, address)) for address in map(str, op.addresses or ("0.0.0.0",))]
        opened.pop_all()
    return sockets


def _listening(op: Listener, address: str) -> socket.socket:
    try:
        sock = _of_protocol(socket.AF_INET6 if ":" in address else socket.AF_INET, op.protocol)
    except OSError as error:
        if error.errno in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            raise MachineError(
                f"{op.netns}: this kernel has no {op.protocol} sockets ({error.strerror}); "
                f"{op.protocol} needs a kernel built with it (for SCTP: modprobe sctp, package linux-modules-extra)"
            ) from None
        raise KernelError(f"{op.netns}: {op.pod} cannot open a {op.protocol} socket: {error.strerror}") from error
    try:
        listen(sock, address, op.port)
    except OSError as error:
        where = f"{host_port(address, op.port)}/{op.protocol.lower()}"
        raise KernelError(f"{op.netns}: {op.pod} cannot listen on {where}: {error.strerror}") from error
    return sock


def _of_protocol(family: int, protocol: Protocol) -> socket.socket:
    match protocol:
        case Protocol.UDP:
            return socket.socket(family, socket.SOCK_DGRAM)
        case Protocol.SCTP:
            return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
        case Protocol.TCP:
            return socket.socket(family, socket.SOCK_STREAM)
        case Protocol.ICMP:
            raise MachineError("nothing can listen for ICMP: the kernel answers it")


def listen(sock: socket.socket, address: str, port: int) -> None:
    """Have it serve this address of its own family; datagrams come with the address that was asked. Closed on OSError."""
    datagrams, six = sock.type == socket.SOCK_DGRAM, sock.family == socket.AF_INET6
    try:
        sock.setblocking(False)
        if six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if not datagrams:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif six:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.bind((address, port))
        if not datagrams:
            sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise


def reply_from(ancillary: Ancillary) -> Ancillary:
    """What makes an answer leave from the address to which the datagram with this ancillary data came."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_PKTINFO:
            _, local, _ = struct.unpack("=I4s4s", data[:12])
            return [(level, kind, struct.pack("=I4s4s", 0, local, b"\0" * 4))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return [(level, kind, data)]
    return []
