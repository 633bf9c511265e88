"""How the virtual servers of a namespace differ from planned ones, and how they are shown to people.

A real server that nobody planned and that takes no new connections (weight 0) is no difference: it is leaving.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from netlab.kernel import ipvs
from netlab.kernel.ipvs import Listed, Service
from netlab.kernel.namespaces import entered
from netlab.model import Address
from netlab.ops import Identity, VirtualServer

Drift = tuple[str, Identity | None]
_OPTIONS = {"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service"}


def drift(netns: str, fd: int, planned: Sequence[VirtualServer]) -> Iterator[Drift]:
    """Every difference, the planned ones first. Raises KernelError, OSError."""
    with ipvs.Table(fd) as table:
        there = table.services()
    for op in planned:
        found = there.pop(ipvs.service_of(op), None)
        name = f"{netns}: virtual server {_socket(op.address, op.port)}/{op.protocol.lower()}"
        if found is None:
            yield f"{name} is missing", op.identity
        else:
            yield from ((f"{name} {sentence}", op.identity) for sentence in _differences(op, found))
    for protocol, address, port in there:
        identity = ("virtual-server", netns, protocol, str(address), str(port))
        yield f"{netns}: virtual server {_socket(address, port)}/{protocol.lower()} is not planned", identity


def _differences(op: VirtualServer, found: Listed) -> Iterator[str]:
    if found.scheduler != op.scheduler:
        yield f"chooses by {found.scheduler}, not {op.scheduler}"
    if found.persistence_s != op.persistence_s:
        yield f"keeps clients for {found.persistence_s} s, not {op.persistence_s} s"
    planned = {(one.address, one.port): one.weight for one in op.real_servers}
    for target, weight in planned.items():
        if target not in found.real:
            yield f"lacks its real server {_socket(*target)}"
        elif found.real[target].weight != weight:
            yield f"gives weight {found.real[target].weight} to {_socket(*target)}, not {weight}"
    for target, real in found.real.items():
        if target not in planned and real.weight:
            yield f"has a real server {_socket(*target)} that is not planned"


def text(fd: int) -> str:
    """As `ipvsadm-save -n` prints it, sorted; '' where there is none, also because the kernel has no IPVS."""
    with entered(fd):
        known = Path("/proc/thread-self/net/ip_vs").exists()  # asking the kernel for IPVS would load it
    if not known:
        return ""
    with ipvs.Table(fd) as table:
        there = table.services()
    return "".join(line for service, found in sorted(there.items(), key=_order) for line in _lines(service, found))


def _order(item: tuple[Service, Listed]) -> tuple[object, ...]:
    (protocol, address, port), _ = item
    return (address.version, address.packed, port, protocol)


def _lines(service: Service, found: Listed) -> Iterator[str]:
    protocol, address, port = service
    head = f"{_OPTIONS[protocol]} {_socket(address, port)}"
    yield f"-A {head} -s {found.scheduler}{f' -p {found.persistence_s}' if found.persistence_s is not None else ''}\n"
    for target, real in found.real.items():
        yield f"-a {head} -r {_socket(*target)} -m -w {real.weight}\n"


def _socket(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
