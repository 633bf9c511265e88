"""From what the user typed to what a lab is started with: topology and manifest files, read and adapted to each other."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

from netlab import manifest
from netlab.errors import InputError, Problem
from netlab.model import KubernetesObject, ProxyConfig, Topology

Inputs = tuple[Topology, tuple[KubernetesObject, ...], tuple[str, ...]]


def read_inputs(
    topology: str | Path | Topology | None,
    manifests: Sequence[str],
    *,
    proxy: str | None = None,
    fabric: str | None = None,
    stdin: Callable[[], bytes] = lambda: sys.stdin.buffer.read(),
) -> Inputs:
    """(topology, objects, warnings). Raises InputError with every mistake of every file."""
    problems: list[Problem] = []
    value: Topology | None = None
    if isinstance(topology, Topology):
        value = topology
    elif topology is not None:
        try:
            value = manifest.read_topology(manifest.Source(str(topology), _read(Path(topology))))
        except InputError as error:
            problems += error.problems
    objects: tuple[KubernetesObject, ...] = ()
    warnings: tuple[str, ...] = ()
    try:
        loaded = manifest.read_objects(manifest.read_paths(manifests, stdin))
        objects, warnings = loaded.objects, loaded.warnings
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(tuple(problems))
    chosen = overridden(manifest.adapt_topology(value, objects), proxy, fabric)
    return chosen, objects, (*unused(topology, [chosen.cluster.proxy]), *warnings)


def unused(topology: str | Path | Topology | None, configs: Sequence[ProxyConfig]) -> tuple[str, ...]:
    """Warnings of options in a topology file that none of these settings, each of one mode, looks at."""
    if topology is None or isinstance(topology, Topology):
        return ()
    return manifest.unused_options(manifest.Source(str(topology), _read(Path(topology))), configs)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


def overridden(topology: Topology, proxy: str | None, fabric: str | None) -> Topology:
    """The same topology with the proxy mode and the fabric that the command line names. Raises InputError."""
    cluster = topology.cluster
    choices: list[tuple[str, tuple[str, ...], str]] = []
    if proxy is not None:  # imported only where it is asked for: both bring all rule types along
        from netlab.proxy import names

        choices.append((proxy, names(), "proxy mode"))
    if fabric is not None:
        from netlab.fabric import fabrics

        choices.append((fabric, fabrics(), "fabric"))
    for value, known, what in choices:
        if value not in known:
            meant = get_close_matches(value, known, 1)
            raise InputError(
                f"unknown {what} {value!r}"
                + (f"; did you mean {meant[0]}?" if meant else "")
                + f" (there is: {', '.join(known)})"
            )
    if proxy is not None:
        cluster = replace(cluster, proxy=cluster.proxy.as_variant(proxy))
    return replace(topology, cluster=replace(cluster, fabric=fabric or cluster.fabric))
