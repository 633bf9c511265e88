"""A matrix as the API serves it: one flow for each pair, all side by side, and each of them sent, watched and judged for itself.

Decides who sends to whom where the request does not say, and which process does what. The work is shared out by the namespaces
that send, to as many processes as there are processors, up to MOST_SHARES; each lets one more send and watch, works out meanwhile
what must become of its flows, and writes its results as JSON. No two have the same tokens, or a namespace in common from which
they send: neither could tell its flows from the other's, nor could the kernel's conntrack. All are forked: what they need to know
they have, and what they answer is text, which the holder only passes on. What does not depend on the pair is worked out once a
process: see netlab/expect, netlab/trace.
"""

import contextlib
import gc
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

from netlab.dns import is_server
from netlab.errors import InputError
from netlab.kernel import agent
from netlab.lab.holder import Lab
from netlab.lab.http import Rendered
from netlab.lab.probing import Asked, Body, Later, answered, request, result, waiting_s, watch_list
from netlab.lab.ranges import SENT_AGAIN
from netlab.lab.receiving import receivers
from netlab.lab.verbs import alive
from netlab.model import Cluster, Flow, Protocol, Ref
from netlab.probes.values import place
from netlab.probes.worker import Worker
from netlab.targets import Destination, addresses_of, netns_of, resolve_destination, resolve_sender, source_address

MAXIMUM_PAIRS = 50_000
MOST_SHARES, LEAST_PAIRS = 8, 64
"""At most so many parts of a matrix are done side by side, and none is made for fewer pairs."""
Pair = tuple[str, str]
"""Sender and destination, as the request names them."""


def matrix(lab: Lab, body: Body, later: Later) -> None:
    """{"from": [targets]|None, "to": [targets]|None, "namespace", "timeout_s"} -> probe results, one flow a pair, all side
    by side.
    """
    pairs = _pairs(lab.cluster, body)
    namespace, timeout_s = body.get("namespace") or "default", waiting_s(body)
    probers = shares_for(len(pairs), len(os.sched_getaffinity(0)))
    taken: dict[str, int] = {}
    for sender, flows in Counter(sender for sender, _ in pairs).items():
        with contextlib.suppress(InputError):  # the errand tells
            home = netns_of(lab.cluster, resolve_sender(lab.cluster, sender, namespace))
            first = lab.ports.take(home, flows + SENT_AGAIN)
            taken.setdefault(home, first)

    def do(own: Sequence[int]) -> Rendered:
        lab.ports.hand_out(taken)
        return _matrix(lab, pairs, namespace, timeout_s, own)

    lab.agents.errand(later, "matrix", do, probers)


def shares_for(pairs: int, processors: int) -> int:
    """In how many parts so many pairs are done: each opens sockets in every namespace, which few pairs are not worth."""
    return max(1, min(processors, MOST_SHARES, pairs // LEAST_PAIRS))


def _pairs(cluster: Cluster, body: Body) -> list[Pair]:
    running = [pod for pod in cluster.pods.values() if pod.phase == "Running" and pod.addresses]
    asked = [pod for pod in running if not is_server(pod.meta.namespace, pod.meta.labels)]
    dead = {name for name, outage in cluster.outages.items() if outage.killed}
    living = [str(pod.ref) for pod in asked if pod.node not in dead]
    senders = body.get("from") or living + [f"node/{name}" for name in cluster.nodes if name not in dead] + _hosts(cluster)
    second = [] if body.get("to") else _second_addresses(cluster)
    to = body.get("to") or [str(pod.ref) for pod in asked] + _services(cluster) + second
    if len(senders) * len(to) > MAXIMUM_PAIRS:
        raise InputError(f"{len(senders)} x {len(to)} pairs are more than {MAXIMUM_PAIRS}: choose some with --from and --to")
    pairs = [(sender, destination) for sender in senders for destination in to if sender != destination]
    return _of_one_family(cluster, pairs, second) if second else pairs


def _matrix(lab: Lab, pairs: Sequence[Pair], namespace: str, timeout_s: float, own: Sequence[int]) -> Rendered:
    """The results of all, in their order. Runs in a process of its own. `own`: upper bytes of tokens, one for each that sends."""
    gc.disable()  # it ends with its answer, and values have no cycles
    texts = dict.fromkeys(text for text, _ in pairs)
    homes = {text: netns_of(lab.cluster, resolve_sender(lab.cluster, text, namespace)) for text in texts}
    shares = _shares([homes[text] for text, _ in pairs], len(own))
    first, *others = (
        partial(_share, lab, [pairs[number] for number in share], namespace, timeout_s, byte)
        for share, byte in zip(shares, own, strict=False)  # there may be fewer who send than could
    )
    begun = [_begun("matrix", do) for do in others]
    parts = [first(), *(one() for one in begun)]
    found = sorted(zip(chain.from_iterable(shares), chain.from_iterable(parts), strict=True))
    return Rendered(b"[" + b", ".join(text for _, text in found) + b"]")


def _shares(homes: Sequence[str], number: int) -> list[list[int]]:
    """The pairs' numbers in at most so many parts of about the same size; `homes`: from which namespace each pair is sent.

    All of a namespace are in one part, whatever the names are by which it was called.
    """
    groups: dict[str, list[int]] = {}
    for at, home in enumerate(homes):
        groups.setdefault(home, []).append(at)
    shares: list[list[int]] = [[]]
    for group in groups.values():
        if len(shares[-1]) >= len(homes) / number:
            shares.append([])
        shares[-1] += group
    return shares


def _share(lab: Lab, pairs: Sequence[Pair], namespace: str, timeout_s: float, own: int) -> list[bytes]:
    """The results of these pairs, each as JSON."""
    gc.disable()
    names, watched = receivers(lab.cluster), watch_list(lab)
    asked = list(_resolved(lab, pairs, namespace, timeout_s))
    requests = [request(lab, one, names, watched) for one in asked]
    seen = _begun("sender", lambda: Worker(own).probe_many(requests))
    questions = [answered(lab, one) for one in asked]
    results = (result(lab, question, one, names) for question, one in zip(questions, seen(), strict=True))
    return [json.dumps(one).encode() for one in results]


def _resolved(lab: Lab, pairs: Sequence[Pair], namespace: str, timeout_s: float) -> Iterator[Asked]:
    """What the pairs mean in the cluster as it is now; each name is looked up once. Raises: InputError."""
    cluster = lab.cluster
    senders: dict[str, Ref] = {}
    destinations: dict[tuple[str, str], Destination] = {}
    for text, to in pairs:
        sender = senders.get(text)
        if sender is None:
            sender = senders[text] = alive(lab, resolve_sender(cluster, text, namespace))
        destination = destinations.get((to, sender.namespace))  # short names are looked up in the sender's namespace
        if destination is None:
            destination = destinations[to, sender.namespace] = resolve_destination(cluster, to, namespace, None, sender)
        source = source_address(cluster, sender, destination.address)
        flow = Flow(sender, source, destination.address, destination.port, destination.protocol, 0)
        yield Asked(sender, destination, flow, 1, timeout_s)


def _begun(name: str, do: Callable[[], Any]) -> Callable[[], Any]:
    """Let a process forked now do it; what is returned waits for its answer. Raises what it raised."""
    started = agent.spawn(name, lambda sock: agent.serve_forever(sock, {"do": do}))
    found: list[tuple[bool, Any]] = []
    started.request(lambda ok, answer: found.append((ok, answer)), "do")

    def wait() -> Any:
        while not found:
            started.on_readable()
        started.sock.close()
        ok, answer = found[0]
        if not ok:
            raise answer
        return answer

    return wait


# ---------------------------------------------------------------- everybody


def _hosts(cluster: Cluster) -> list[str]:
    return [f"host/{host.name}" for host in cluster.topology.hosts]


def _services(cluster: Cluster) -> list[str]:
    """Every port of every Service that has a cluster IP, but for `kubernetes`, behind which no lab has an API server, and DNS."""
    return [
        f"svc/{key.namespace}/{key.name}:{port.port}"
        for key, service in cluster.services.items()
        if service.cluster_ips and not service.headless and key != ("default", "kubernetes")
        if not is_server(key.namespace, service.meta.labels)
        for port in service.ports
        if port.protocol is Protocol.TCP
    ]


def _second_addresses(cluster: Cluster) -> list[str]:
    """The other family's addresses of pods and Services that have two."""
    pods = [pod for pod in cluster.pods.values() if pod.phase == "Running" and not pod.spec.host_network]
    found = []
    for pod in pods:
        ports = [port.port for container in pod.spec.containers for port in container.ports if port.protocol is Protocol.TCP]
        found += [place(address, ports[0] if ports else 0) for address in pod.addresses[1:]]
    for service in cluster.services.values():
        ports = [port.port for port in service.ports if port.protocol is Protocol.TCP]
        found += [place(address, port) for address in service.cluster_ips[1:] for port in ports]
    return found


def _of_one_family(cluster: Cluster, pairs: list[tuple[str, str]], second: list[str]) -> list[tuple[str, str]]:
    """The pairs that have a family in common. A pod's packet to its own second address is left out, as to its first."""
    own = {text: addresses_of(cluster, resolve_sender(cluster, text)) for text, _ in pairs}
    asked = {text: resolve_destination(cluster, text).address for _, text in pairs}
    return [
        (sender, to)
        for sender, to in pairs
        if any(address.version == asked[to].version for address in own[sender])
        and not (to in second and asked[to] in own[sender])
    ]
