"""The two answers that need no kernel, for the packets of a case: what the rules of a plan do, and what Kubernetes says."""

from netlab.expect import expect
from netlab.model import Cluster, Outcome, OutcomeKind
from netlab.plan import build
from netlab.trace import Trace, Tracer
from tests import spec


def answers(cluster: Cluster, case: spec.Case) -> tuple[tuple[Trace, Outcome], ...]:
    """(traced, expected) of every packet of the case, in this cluster."""
    tracer = Tracer(build(cluster))
    flows = [spec.flow_of(packet, case) for packet in case.packets]
    return tuple((tracer.trace(flow), expect(cluster, flow)) for flow in flows)


def assert_agree(outcome: Outcome, expected: Outcome) -> None:
    assert outcome.kind is expected.kind, (outcome.why, expected.why)
    assert outcome.backends == expected.backends, (outcome.why, expected.why)
    assert [b.fate for b in outcome.backends] == [b.fate for b in expected.backends], (outcome.why, expected.why)
    assert outcome.affinity == expected.affinity


def assert_lands(traced: Trace, said: spec.Expected) -> None:
    """Where the table says. What the node that is asked leaves alone meets ordinary routing, or another node's own rules."""
    match said.kind:
        case OutcomeKind.DELIVERED:
            assert frozenset(traced.outcome.backends) == said.backends, traced.outcome.why
        case OutcomeKind.NOT_HANDLED:
            hops = [hop for path in traced.paths for hop in path.hops if hop.netns == f"node/{spec.NODE}"]
            assert all(hop.entered.destination == hop.left.destination for hop in hops)
        case refused:
            assert traced.outcome.kind is refused, traced.outcome.why
            assert not traced.outcome.backends
