"""A picture of a lab in plain text: networks, what is attached to them, and the pods of each node. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from netlab.fabric import impairments
from netlab.model import Address, Cluster, Lan, Protocol, ServicePort
from netlab.observe import graph

WIDTH = 110
"""Columns of the page; boxes that do not fit go to the next row."""


@dataclass(frozen=True, slots=True)
class Member:
    """A host or node: what stands in its box, and its addresses."""

    name: str
    lines: tuple[str, ...]
    addresses: tuple[Address, ...]


def draw(cluster: Cluster, width: int = WIDTH, collapse: int | None = None, services: bool = True) -> str:
    """Each network as a double line, hosts above it and nodes below. What is on two networks is drawn at the first, and named
    under the others."""
    drawn: set[str] = set()
    parts = []
    for lan in cluster.topology.networks:
        here = [one for one in (*hosts(cluster), *nodes(cluster, collapse)) if any(address in lan for address in one.addresses)]
        again = [one for one in here if one.name in drawn]
        new = [one for one in here if one.name not in drawn]
        drawn |= {one.name for one in new}
        parts.append(network(lan, new, again, width))
    return "\n".join(part for part in [*parts, service_lines(cluster) if services else "", impaired(cluster)] if part)


def hosts(cluster: Cluster) -> Iterator[Member]:
    for one in cluster.topology.hosts:
        yield Member(f"host/{one.name}", tuple(f"{to} via {gateway}" for to, gateway in one.routes), one.addresses)


def nodes(cluster: Cluster, collapse: int | None = None) -> Iterator[Member]:
    """With `collapse`, more pods than that on one node are shown by their owner."""
    if collapse is not None:
        for machine in graph.graph(cluster, collapse).nodes:
            lines = [machine.bridge]
            for pod in machine.pods:
                count = f"{pod.count} x " if pod.count > 1 else ""
                tags = " ".join(graph.letter(number) for number in pod.services)
                lines.append(
                    f"  {pod.address}  {count}{pod.name}{'' if pod.ready else ' (not ready)'}{f'  [{tags}]' if tags else ''}"
                )
            yield Member(
                machine.netns, tuple(lines if machine.pods else [*lines, "  (none)"]), cluster.nodes[machine.name].addresses
            )
        return
    for node in cluster.nodes.values():
        pods = sorted((pod for pod in cluster.pods.values() if pod.node == node.meta.name), key=lambda pod: pod.addresses)
        lines = [f"pods {', '.join(map(str, node.pod_cidrs))}"]
        lines += [f"  {', '.join(map(str, pod.addresses)) or '-'}  {label(pod.meta.namespace, pod.meta.name)}" for pod in pods]
        yield Member(f"node/{node.meta.name}", tuple(lines if pods else [*lines, "  (none)"]), node.addresses)


def label(namespace: str, name: str) -> str:
    return name if namespace == "default" else f"{namespace}/{name}"


def network(lan: Lan, new: Sequence[Member], again: Sequence[Member], width: int) -> str:
    """The network's line, with the boxes of its hosts above and of its nodes below."""
    above = rows([box(one, above=True) for one in new if one.name.startswith("host/")], width)
    below = rows([box(one, above=False) for one in new if one.name.startswith("node/")], width)
    router = f", router {' '.join(map(str, lan.routers))}" if lan.routers else ""
    if lan.nat is not None:
        ports = ", ".join(f"{one.port}/{one.protocol.lower()} to {one.address}:{one.target_port}" for one in lan.nat.forwards)
        router += f" translates{f', forwards {ports}' if ports else ''}"
    title = f"== {lan.name} {' '.join(map(str, lan.cidrs))}{router} "
    longest = max([len(title) + 4, *(len(line) for row in (*above, *below) for line in row)])
    lines = [line for row in above for line in row]
    lines.append(title.ljust(longest, "="))
    for at, row in enumerate(below):
        lines += [*([f"== {lan.name} ".ljust(longest, "=")] if at else []), *row]
    lines += [f"   also here: {one.name} {' '.join(str(each) for each in one.addresses if each in lan)}" for one in again]
    return "".join(line + "\n" for line in lines)


def box(member: Member, above: bool) -> list[str]:
    """A framed box, and the wire that joins it to the network's line."""
    lines = [member.name, *map(str, member.addresses), *member.lines]
    inner = max(map(len, lines))
    edge = "+" + "-" * (inner + 2) + "+"
    frame = [edge, *(f"| {line.ljust(inner)} |" for line in lines), edge]
    wire = "|".center(inner + 4)
    return [*frame, wire] if above else [wire, *frame]


def rows(boxes: Sequence[list[str]], width: int) -> list[list[str]]:
    """Boxes side by side, as many in a row as fit."""
    found: list[list[list[str]]] = []
    used = 0
    for one in boxes:
        wide = len(one[0]) + 2
        if not found or used + wide > width + 2:
            found.append([])
            used = 0
        found[-1].append(one)
        used += wide
    return [beside(row) for row in found]


def beside(boxes: Sequence[list[str]]) -> list[str]:
    """One row of boxes, two spaces apart; a box that is shorter ends earlier, its wire reaching down to the line."""
    widths = [len(one[0]) for one in boxes]
    hanging = "|" in boxes[0][0] and "+" not in boxes[0][0]
    tall = max(map(len, boxes))
    if not hanging:
        boxes = [[*[""] * (tall - len(one)), *one] for one in boxes]
    table = zip_longest(*boxes, fillvalue="")
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def impaired(cluster: Cluster) -> str:
    """A line a device that delays, loses or slows down what it sends."""
    return "".join(f"{line}\n" for line in impairments.told(cluster))


def port_words(port: ServicePort) -> str:
    """A port as it is written where TCP goes without saying."""
    protocol = "" if port.protocol == Protocol.TCP else f"/{port.protocol.lower()}"
    return f"{port.port}{protocol}{f' (node port {port.node_port})' if port.node_port else ''}"


def service_lines(cluster: Cluster) -> str:
    """A line a Service: its addresses and ports."""
    lines = []
    for service in cluster.services.values():
        ports = ", ".join(map(port_words, service.ports))
        address = ", ".join(map(str, service.cluster_ips)) or "-"
        lines.append(f"svc/{label(service.meta.namespace, service.meta.name)}  {address}  port {ports or '-'}\n")
    return "".join(lines)
