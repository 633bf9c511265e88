"""Row group `memory`: what a lab holds: its holder, its other processes, and the kernel for its namespaces.

The kernel's part is the difference of the whole machine's figures (Slab, Percpu, KernelStack, PageTables, VmallocUsed) before,
when what was there earlier has been taken apart, and after; other work on the machine is in it.
"""

from collections.abc import Sequence

from netlab.cli.bench import spent
from netlab.cli.bench.labs import standing
from netlab.cli.bench.rows import Row

PODS = (10, 100, 1_000)


def rows(runs: int, counts: Sequence[int] = PODS) -> Sequence[Row]:
    found: list[Row] = []
    for pods in counts:
        holders, others, kernels = [], [], []
        for _ in range(runs):
            before = spent.kernel_at_rest()
            with standing(pods) as lab:
                kernels.append(float(spent.kernel_bytes() - before))
                holders.append(float(spent.resident_bytes(lab.pid)))
                others.append(float(sum(map(spent.resident_bytes, spent.processes(lab.pid)))))
        found += [
            _row("holder", holders, pods, "its share of what it shares (PSS)"),
            _row("other processes", others, pods, "loader, responder, DNS"),
            _row("kernel", kernels, pods, f"{sum(kernels) / len(kernels) / pods / 1e6:.2f} MB a pod, ten nodes included"),
        ]
    return found


def _row(name: str, values: list[float], pods: int, note: str) -> Row:
    return Row(f"{name}, {pods} pods", tuple(values), note, unit="B", series=name, size=pods)
