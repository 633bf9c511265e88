"""probe: send flows, and judge them by the oracle and, where the step has `expect`, by that too."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from netlab.manifest.formats import seconds
from netlab.model import Cluster, Judgement, Key
from netlab.scenario.values import Context, Lab, ProbeResult, StepResult, worst

Arguments = Mapping[str, Any]


def title(arguments: Arguments) -> str:
    return f"{arguments['from']} -> {arguments['to']}"


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    options: dict[str, Any] = {"namespace": arguments.get("namespace", context.namespace)}
    if "timeout" in arguments:
        options["timeout_s"] = seconds(arguments["timeout"])
    options |= {name: arguments[key] for key, name in OPTIONS.items() if key in arguments}
    result = lab.probe(arguments["from"], arguments["to"], count=arguments.get("count", 1), **options)
    expect = arguments.get("expect") or {}
    own = unmet(result, expect, addresses_of(lab, result.sender, arguments) if "masqueraded" in expect else ())
    oracle, why = _oracle(result, expect.get("verdict", "pass"))
    verdict = worst([oracle, Judgement.FAIL if own else Judgement.PASS])
    return StepResult(verdict, (*own, *why), summary(result), result.json())


OPTIONS = {"protocol": "protocol", "source": "source", "sourcePort": "source_port"}


def _oracle(result: ProbeResult, wanted: str) -> tuple[Judgement, tuple[str, ...]]:
    """The probe's own verdict; a step that wants it to be something else passes exactly when it is that."""
    if wanted == "pass":
        return Judgement(result.verdict), tuple(result.why) if result.verdict != "pass" else ()
    if result.verdict == wanted:
        return Judgement.PASS, ()
    return Judgement.FAIL, (f"the verdict is {result.verdict}, expected {wanted}", *result.why)


def summary(result: ProbeResult) -> str:
    """`60 delivered to 3 backends`"""
    parts = [f"{number} {outcome}" for outcome, number in result.outcomes.items() if number]
    text = ", ".join(parts) or f"{result.sent} sent"
    backends = len(result.backends)
    return text + (f" to {backends} backend{'s' if backends != 1 else ''}" if backends else "")


def unmet(result: ProbeResult, expect: Mapping[str, Any], own_addresses: Sequence[str]) -> list[str]:
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


def _masqueraded(seen: Sequence[str], wanted: bool, own: Sequence[str]) -> list[str]:
    if not seen:
        return ["no backend saw a source address, so there is no telling whether flows were masqueraded"]
    wrong = [source for source in seen if (source in own) == wanted]
    if not wrong:
        return []
    if wanted:
        return [f"backends saw the sender's own address {', '.join(wrong)}, expected it to be masqueraded"]
    return [f"backends saw {', '.join(wrong)}, expected the sender's own address ({', '.join(own)})"]


def addresses_of(lab: Lab, sender: str, arguments: Arguments) -> tuple[str, ...]:
    """The addresses that a flow of this sender has before anything rewrites it."""
    if "source" in arguments:
        return (str(arguments["source"]),)
    return tuple(map(str, _addresses(lab.cluster(), sender)))


def _addresses(cluster: Cluster, sender: str) -> Sequence[Any]:
    match sender.split("/"):
        case ["pod", namespace, name] if Key(namespace, name) in cluster.pods:
            return cluster.pods[Key(namespace, name)].addresses
        case ["node", name] if name in cluster.nodes:
            return cluster.nodes[name].addresses
        case ["host", name]:
            return [address for host in cluster.topology.hosts if host.name == name for address in host.addresses]
        case _:
            return ()
