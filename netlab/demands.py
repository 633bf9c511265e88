"""What a test demands of a probe's result beside the oracle: the `expect` of a scenario's step and of `Lab.probe`.

Pure. Decides which demands there are and when one is not met. Refuses to know what Kubernetes promises: that is the oracle's,
whose verdict stands in the result already.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol

from netlab.expect import claims
from netlab.model import Cluster, Key


class Result(Protocol):
    """A probe result, as far as demands are made of it."""

    @property
    def sent(self) -> int: ...
    @property
    def outcomes(self) -> Mapping[str, int]: ...
    @property
    def backends(self) -> Mapping[str, int]: ...
    @property
    def sources(self) -> Mapping[str, int]: ...
    def json(self) -> dict[str, Any]: ...


def unmet(result: Result, expect: Mapping[str, Any], own_addresses: Sequence[str]) -> list[str]:
    """What of `expect` did not hold, one sentence each. `own_addresses`: the sender's, which a masqueraded flow must not show."""
    found = []
    outcome = expect.get("outcome")
    if outcome is not None and result.outcomes.get(outcome, 0) != result.sent:
        found.append(f"{result.outcomes.get(outcome, 0)} of {result.sent} flows were {outcome}, expected all")
    if "backends" in expect:
        found += _backends(tuple(result.backends), expect["backends"])
    if "route" in expect:
        answered = tuple((result.json().get("route") or {}).get("backends") or ())
        found += [f"behind the Ingress controller: {line}" for line in _backends(answered, expect["route"])]
    if "sources" in expect:
        found += _sources(tuple(result.sources), expect["sources"])
    if "affinity" in expect and (len(result.backends) == 1) != expect["affinity"]:
        what = "expected one" if expect["affinity"] else "expected several"
        found.append(f"the flows of one client went to {len(result.backends)} backends, {what}")
    if "masqueraded" in expect:
        found += _masqueraded(tuple(result.sources), expect["masqueraded"], own_addresses)
    return found


def _backends(seen: Sequence[str], wanted: int | str | Sequence[str]) -> list[str]:
    if isinstance(wanted, int):
        if len(seen) == wanted:
            return []
        return [f"flows arrived at {len(seen)} backends ({', '.join(seen) or 'none'}), expected {wanted}"]
    patterns = [wanted] if isinstance(wanted, str) else list(wanted)
    missing = [pattern for pattern in patterns if not any(_fits(name, pattern) for name in seen)]
    others = [name for name in seen if not any(_fits(name, pattern) for pattern in patterns)]
    found = [f"nothing arrived at {pattern}" for pattern in missing]
    return found + [f"flows arrived at {name}, which was not expected" for name in others]


def _fits(name: str, pattern: str) -> bool:
    """`pod/x` means pod/default/x; `*` stands for anything: pod/web-*."""
    kind, _, rest = pattern.partition("/")
    full = f"{kind}/default/{rest}" if kind == "pod" and "/" not in rest else pattern
    return fnmatchcase(name, full)


def _sources(seen: Sequence[str], wanted: str | Sequence[str]) -> list[str]:
    """Exactly these were seen; `*` stands for anything: 192.168.0.*"""
    patterns = [wanted] if isinstance(wanted, str) else list(wanted)
    missing = [pattern for pattern in patterns if not any(fnmatchcase(source, pattern) for source in seen)]
    others = [source for source in seen if not any(fnmatchcase(source, pattern) for pattern in patterns)]
    found = [f"no backend saw the source {pattern} (seen: {', '.join(seen) or 'none'})" for pattern in missing]
    return found + [f"backends saw the source {source}, which was not expected" for source in others]


def _masqueraded(seen: Sequence[str], wanted: bool, own: Sequence[str]) -> list[str]:
    if not seen:
        return ["no backend saw a source address, so there is no telling whether flows were masqueraded"]
    wrong = [source for source in seen if (source in own) == wanted]
    if not wrong:
        return []
    if wanted:
        return [f"backends saw the sender's own address {', '.join(wrong)}, expected it to be masqueraded"]
    return [f"backends saw {', '.join(wrong)}, expected the sender's own address ({', '.join(own)})"]


def own_addresses(cluster: Cluster, sender: str, source: str | None) -> tuple[str, ...]:
    """The addresses that a flow of this sender has before anything rewrites it. `source`: the one that it was told to take."""
    return (str(source),) if source else tuple(map(str, _addresses(cluster, sender)))


def _addresses(cluster: Cluster, sender: str) -> Sequence[Any]:
    match sender.split("/"):
        case ["pod", namespace, name] if Key(namespace, name) in cluster.pods:
            return cluster.pods[Key(namespace, name)].addresses
        case ["node", name] if name in cluster.nodes:
            return claims.own_addresses(cluster, cluster.nodes[name]).listed
        case ["host", name]:
            return [address for host in cluster.topology.hosts if host.name == name for address in host.addresses]
        case _:
            return ()
