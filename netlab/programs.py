"""What runs in a pod: the built-in responder on every containerPort, or the container's own command as a real process.

Decides: which of the two, in which namespace, as which persona, for every container that runs at this moment.
Refuses to know: what a persona answers, how a process is started, and what it is told about Services.
"""

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from itertools import chain

from netlab import dns
from netlab.images import ingress_controller, is_dns, persona, probed_ports, runs_program
from netlab.memory import kept_for_each
from netlab.model import Cluster, Container, ContainerPort, ContainerStatus, Pod, Protocol
from netlab.ops import Listener, Op, Process

Environment = Callable[[Pod, Container], tuple[tuple[str, ...], Mapping[str, str]]]
"""The command and the variables (HOSTNAME among them) of a container, all references replaced."""
Addresses = tuple[IPv4Address | IPv6Address, ...]


def plan(cluster: Cluster, environment: Environment) -> tuple[Op, ...]:
    """Listeners and processes of every container that runs; `environment` is asked only where there is a command."""
    placed = [pod for pod in cluster.pods.values() if pod.node in cluster.nodes and pod.addresses]
    answered = iter(_answered((pod for pod in placed if not _has_program(pod)), None))
    return tuple(chain.from_iterable(_pod(pod, environment) if _has_program(pod) else next(answered) for pod in placed))


def _has_program(pod: Pod) -> bool:
    return any(map(runs_program, pod.all_containers))


@kept_for_each
def _answered(pod: Pod, _: None) -> tuple[Op, ...]:
    """A pod whose environment nobody asks for."""
    return tuple(_pod(pod, lambda _, container: (container.command, {})))


def _pod(pod: Pod, environment: Environment) -> Iterator[Op]:
    netns = f"node/{pod.node}" if pod.spec.host_network else str(pod.ref)
    # Containers listen on every address, so that localhost answers, too; without IPv6 that is the listener's own default.
    everywhere = (IPv4Address(0), IPv6Address(0)) if any(address.version == 6 for address in pod.addresses) else ()
    taken: set[tuple[Protocol, int]] = set()
    for container, status in pod.running():
        if ingress_controller(container.image):
            continue  # a real proxy stands in for it: netlab.ingress
        if is_dns(persona(container.image)):
            yield from _dns(netns, pod, container, everywhere)
            continue
        if runs_program(container):
            yield _process(netns, pod, container, status, *environment(pod, container))
            continue
        declared = [(port.protocol, port.port) for port in container.ports]
        for protocol, port in dict.fromkeys((*declared, *((Protocol.TCP, number) for number in probed_ports(container)))):
            if (protocol, port) not in taken:
                taken.add((protocol, port))
                yield Listener(netns, str(pod.ref), protocol, port, persona(container.image), everywhere, run=status.restarts)


def _dns(netns: str, pod: Pod, container: Container, everywhere: Addresses) -> Iterator[Op]:
    """The lab's own DNS server stands in for the image, whatever its command; health and metrics ports just answer."""
    others = {(Protocol.TCP, number) for number in probed_ports(container)}
    questions = {(port.protocol, port.port) for port in container.ports if _asks(port)}
    others |= {(port.protocol, port.port) for port in container.ports}
    for protocol, number in sorted(questions or {(Protocol.TCP, 53), (Protocol.UDP, 53)}):
        yield Listener(netns, str(pod.ref), protocol, number, dns.PERSONA, everywhere)
    for protocol, number in sorted(others - questions):
        yield Listener(netns, str(pod.ref), protocol, number, persona(container.image), everywhere)


def _asks(port: ContainerPort) -> bool:
    return port.port == 53 or port.name.startswith("dns")


def _process(
    netns: str, pod: Pod, container: Container, status: ContainerStatus, command: tuple[str, ...], variables: Mapping[str, str]
) -> Process:
    return Process(
        netns,
        pod.ref,
        container.name,
        command,
        tuple(variables.items()),
        variables["HOSTNAME"],
        pod.meta.uid,
        status.restarts,
        status.stopping is not None and status.hooked,
    )
