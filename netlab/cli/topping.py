"""top: connections, packets and drops of nodes, Services and pods, live, from the kernel's own counters."""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import output
from netlab.cli.output import LabOption

if TYPE_CHECKING:
    from netlab.cli.following import Following
    from netlab.client import Lab
    from netlab.kernel.counters import Counters
    from netlab.observe.top import Sample


def top(
    seconds: Annotated[
        float, typer.Option("--every", min=0.1, metavar="SECONDS", callback=output.above_zero, help="Between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Two looks, one table, done; -o json does no more.")] = False,
    form: Annotated[str | None, typer.Option("-o", "--output", metavar="json")] = None,
    lab: LabOption = None,
) -> int:
    """Show connections, packets and drops, live.

    By node, Service and pod. Everything is counted by the kernel: links, conntrack, rules of iptables (nftables mode has no
    counters in its rules: Services show `-` for drops there). While it runs, conntrack counts packets, so a Service's packets
    are those of connections that begin from then on. Ctrl-C ends it (exit code 130).

    \b
    Examples:
      netlab top
      netlab top --every 5
      netlab top -o json
    """
    output.choose(form, ("json",), "-o")
    from netlab.cli.following import Following
    from netlab.kernel.counters import accounting
    from netlab.observe import top as shown

    running = output.attach(lab)
    screen = not once and form is None and sys.stdout.isatty()
    stream = Following(running, kernel=True, only=("node/",))
    watch = Watch(running, stream)
    with contextlib.ExitStack() as stack:
        stack.callback(watch.close)
        stack.enter_context(accounting(watch.node_fds()))
        if screen:
            stack.enter_context(_alternate())
        before = watch.sample()
        if not screen:
            output.message(f"counting for {seconds:g} s")
        while True:
            watch.wait(seconds)
            now = watch.sample()
            found = shown.document(now, before, watch.facts())
            if form == "json":
                output.print_json(found)
            else:
                size = shutil.get_terminal_size((110, 50 if not screen else 24))
                page = shown.text(found, size.columns, size.lines - 1 if screen else 10_000, watch.pods)
                sys.stdout.write(("\x1b[H" + page.replace("\n", "\x1b[K\n") + "\x1b[J") if screen else page)
            sys.stdout.flush()
            if once or form == "json":  # a document is one
                return 0
            before = now


@contextlib.contextmanager
def _alternate() -> Iterator[None]:
    """The terminal's other screen, without its cursor; as it was, afterwards."""
    sys.stdout.write("\x1b[?1049h\x1b[?25l")
    try:
        yield
    finally:
        sys.stdout.write("\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()


class Watch:
    """A lab's counters, looked at again and again."""

    def __init__(self, lab: "Lab", stream: "Following") -> None:
        from netlab.observe.top import Tally

        self._lab, self._stream, self._tally = lab, stream, Tally()
        self._open: dict[str, tuple[int, Any]] = {}
        self._stale = True
        self._learn()

    def node_fds(self) -> list[int]:
        return [fd for name, (fd, _) in self._open.items() if name.startswith("node/")]

    def facts(self) -> dict[str, Any]:
        return {
            "lab": self._lab.name,
            **self._proxy,
            "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        }

    def close(self) -> None:
        for fd, counters in self._open.values():
            counters.close()
            os.close(fd)

    def wait(self, seconds: float) -> None:
        """Let that much time pass, and take in what begins and ends meanwhile."""
        for event in self._stream.events(time.monotonic() + seconds):
            if event["type"] == "conntrack":
                self._tally.event(event["where"], event["action"], event["connection"], self._names, self._node_of)
            elif event["type"] in ("object", "rules"):
                self._stale = True

    def sample(self) -> "Sample":
        """Look at everything now."""
        from netlab.kernel import conntrack
        from netlab.observe import top as shown

        self._learn()
        found = shown.Sample(time.monotonic())
        found.services = {name: shown.Sums(dropped=0 if self._counted else None) for name in self._services}
        tables: dict[str, list[dict[str, Any]]] = {}
        for name, (_, counters) in self._open.items():
            links = counters.links()
            if name.startswith("node/"):  # what goes to a pod and comes from it has been counted at the uplink, or is the pod's
                links = {device: one for device, one in links.items() if device.startswith("eth")}
            sums = shown.Sums(
                rx=sum(one.rx_packets for one in links.values()), tx=sum(one.tx_packets for one in links.values()),
                dropped=sum(one.dropped for one in links.values()),
            )  # fmt: skip
            (found.nodes if name.startswith("node/") else found.pods)[name] = sums
            if counters.conntrack is not None:
                tables[name] = [
                    conntrack.as_json(entry) for entry in counters.conntrack.entries() if not conntrack.is_own_test(entry)
                ]
                self._drops(name, counters, found)
        shown.tallied(found, self._tally, tables, self._names, self._node_of)
        return found

    def _drops(self, node: str, counters: "Counters", found: "Sample") -> None:
        """Packets that rules made for a Service dropped or refused."""
        mine = self._deadly.get(node)
        if not mine:
            return
        for rule, count in counters.rules().items():
            owner = mine.get(rule)
            if owner in found.services:
                found.services[owner].dropped = (found.services[owner].dropped or 0) + count

    def _learn(self) -> None:
        """Names, nodes of pods, rules and namespaces as they are now, where something has changed."""
        if not self._stale:
            return
        from netlab.dns import pods_in_words
        from netlab.kernel.counters import Counters
        from netlab.lab.naming import names_of

        self._stale = False
        cluster = self._lab.cluster()
        self._proxy = cluster.topology.cluster.proxy.told
        self.pods = pods_in_words(cluster)
        self._names = names_of(cluster)
        self._node_of = {str(pod.ref): pod.node for pod in cluster.pods.values() if not pod.spec.host_network}
        self._services = [str(one.ref) for one in cluster.services.values() if one.cluster_ips]
        self._deadly = deadly(self._lab)
        self._counted = bool(self._deadly)
        numbers = {name: number for name, number in self._lab.verb("namespaces").items() if name.startswith(("node/", "pod/"))}
        for name in [name for name in self._open if name not in numbers]:
            fd, counters = self._open.pop(name)
            counters.close()
            os.close(fd)
        for name in numbers.keys() - self._open.keys():
            with contextlib.suppress(OSError):
                fd = self._stream.inside.open(numbers[name])
                self._open[name] = (fd, Counters(fd, name.startswith("node/")))


def deadly(lab: "Lab") -> Mapping[str, Mapping[str, str]]:
    """Node -> `TABLE LINE` of iptables-save -> the Service for which that rule drops or refuses."""
    from netlab.ops import Ruleset
    from netlab.rendering import iptables
    from netlab.ruleset import Drop, Reject

    found: dict[str, dict[str, str]] = {}
    for op in lab.plan().ops.values():
        if not isinstance(op, Ruleset) or op.value.dialect != "iptables":
            continue
        lines = iptables.lines(op.value)
        found.setdefault(op.netns, {})
        for table in op.value.tables:
            if table.family != "ip":
                continue
            rules = [line for line in lines.get(table.name, ()) if line.startswith("-A ")]
            owners = [rule for chain in table.chains for rule in chain.rules]
            for line, rule in zip(rules, owners, strict=True):
                if rule.owner is not None and any(isinstance(one, Drop | Reject) for one in rule.statements):
                    found[op.netns][f"{table.name} {line}"] = str(rule.owner)
    return found
