"""What runs in a pod: the built-in responder on every containerPort, or the container's own command as a real process.

Decides: which of the two, in which namespace, as which persona.
Refuses to know: what a persona answers, how a process is started, and what it is told about Services.
"""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from itertools import chain

from netlab import dns
from netlab.memory import kept_for_each
from netlab.model import Cluster, Container, ContainerPort, Pod, Protocol
from netlab.ops import Listener, Op, Process

Environment = Callable[[Pod], Mapping[str, str]]


def plan(cluster: Cluster, environment: Environment) -> tuple[Op, ...]:
    """Listeners and processes of every pod that runs; `environment(pod)` (HOSTNAME in it) is asked only for commands."""
    running = [pod for pod in cluster.pods.values() if pod.phase == "Running" and pod.node in cluster.nodes and pod.addresses]
    answered = iter(_answered((pod for pod in running if not _has_command(pod)), None))
    return tuple(chain.from_iterable(_pod(pod, environment) if _has_command(pod) else next(answered) for pod in running))


def _has_command(pod: Pod) -> bool:
    return any(container.command for container in pod.spec.containers)


@kept_for_each
def _answered(pod: Pod, _: None) -> tuple[Op, ...]:
    """A pod whose environment nobody asks for."""
    return tuple(_pod(pod, lambda _: {}))


def persona(image: str) -> str:
    """The image's base name, without registry, tag and digest: `docker.io/luksa/kubia:v2` is `kubia`."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _pod(pod: Pod, environment: Environment) -> Iterator[Op]:
    netns = f"node/{pod.node}" if pod.spec.host_network else str(pod.ref)
    # Containers listen on every address, so that localhost answers, too; without IPv6 that is the listener's own default.
    everywhere = (IPv4Address(0), IPv6Address(0)) if any(address.version == 6 for address in pod.addresses) else ()
    taken: set[tuple[Protocol, int]] = set()
    for container in pod.spec.containers:
        if dns.is_image(persona(container.image)):
            yield from _dns(netns, pod, container, everywhere)
            continue
        if container.command:
            yield _process(netns, pod, container, environment(pod))
            continue
        for port in container.ports:
            if (port.protocol, port.port) not in taken:
                taken.add((port.protocol, port.port))
                yield Listener(netns, str(pod.ref), port.protocol, port.port, persona(container.image), everywhere)


def _dns(netns: str, pod: Pod, container: Container, everywhere: tuple[IPv4Address | IPv6Address, ...]) -> Iterator[Op]:
    """The lab's own DNS server stands in for the image, whatever its command; health and metrics ports just answer."""
    probe = container.readiness.port if container.readiness is not None else None
    named = {port.name: port.port for port in container.ports}
    others = {(Protocol.TCP, named.get(probe, 0) if isinstance(probe, str) else probe or 0)} - {(Protocol.TCP, 0)}
    questions = {(port.protocol, port.port) for port in container.ports if _asks(port)}
    others |= {(port.protocol, port.port) for port in container.ports}
    for protocol, number in sorted(questions or {(Protocol.TCP, 53), (Protocol.UDP, 53)}):
        yield Listener(netns, str(pod.ref), protocol, number, dns.PERSONA, everywhere)
    for protocol, number in sorted(others - questions):
        yield Listener(netns, str(pod.ref), protocol, number, persona(container.image), everywhere)


def _asks(port: ContainerPort) -> bool:
    return port.port == 53 or port.name.startswith("dns")


def _process(netns: str, pod: Pod, container: Container, variables: Mapping[str, str]) -> Process:
    return Process(
        netns,
        pod.ref,
        container.name,
        container.command,
        tuple({**variables, **dict(container.env)}.items()),
        variables["HOSTNAME"],
        pod.spec.restart_policy,
    )
