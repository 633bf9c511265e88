"""Row group `up`: from the shell to answering pods, in both fabrics; and the wiring alone, beside what others need for it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from netlab.cli.bench import peers, sizes
from netlab.cli.bench.labs import up_and_down
from netlab.cli.bench.peers import Measured
from netlab.cli.bench.rows import Row

if TYPE_CHECKING:
    from netlab.plan import Plan

PODS = (10, 100, 1_000)
FABRICS = ("routed", "bridge")
PEERS: Mapping[str, Callable[["Plan", int], Measured]] = {
    "netlab": peers.wiring,
    "ip -batch": peers.ip_batch,
    "pyroute2": peers.pyroute2,
    "one ip a command": peers.ip_commands,
}
SLOW = ("pyroute2", "one ip a command")
"""They take a minute for 1,000 pods: once is enough to know it."""


def rows(runs: int, counts: Sequence[int] = PODS) -> Sequence[Row]:
    found: list[Row] = []
    for pods in counts:
        for fabric in FABRICS:
            measured = up_and_down(pods, fabric, runs)
            name, note = f"netlab up, {fabric}", f"{sizes.NODES} nodes, {-(-pods // sizes.A_DEPLOYMENT)} Services, pods answering"
            row = Row(f"{name}, {pods}", measured.up, note, (), measured.cpu, series=name, size=pods)
            found.append(row if fabric == FABRICS[0] else replace(row, peers=(f"netlab up, {FABRICS[0]}, {pods}",)))
    for pods in counts:
        for fabric in FABRICS:
            found += wiring(pods, fabric, runs)
        bridge = peers.mininet(pods, 1 if pods > 100 else min(runs, 3))
        found.append(_row("Mininet", "one bridge", pods, bridge, f"wiring by floor.c, {FABRICS[1]}, {pods}"))
    return found


def wiring(pods: int, fabric: str, runs: int) -> Iterator[Row]:
    """Namespaces, links, addresses, routes and neighbours of the lab: the floor first."""
    plan = planned(pods, fabric)
    floor = f"wiring by floor.c, {fabric}, {pods}"
    yield _row("floor.c", fabric, pods, peers.floor(plan, runs), "")
    for name, measure in PEERS.items():
        if name in SLOW and fabric != FABRICS[0]:
            continue
        yield _row(name, fabric, pods, measure(plan, 1 if name in SLOW and pods > 100 else runs), floor)


def _row(who: str, fabric: str, pods: int, measured: Measured, floor: str) -> Row:
    name = f"wiring by {who}, {fabric}"
    above = (floor,) if floor else ()
    return Row(f"{name}, {pods}", measured.seconds, measured.note, above, measured.cpu, series=name, size=pods)


def planned(pods: int, fabric: str) -> "Plan":
    """The plan that `up` installs, for the peers to build the same."""
    from netlab import controllers, plan
    from netlab.lab.inputs import read_inputs

    with sizes.written(pods, fabric) as files:
        topology, objects, _ = read_inputs(str(files.topology), [str(files.manifest)])
    return plan.build(controllers.initial(topology, objects))
