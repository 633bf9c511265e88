"""Decides the revisions of a DaemonSet or StatefulSet: which templates it has had, and which one each pod was made from.

A pod carries the hash of its revision as a label. Pods of a dump bring theirs: what most of them have is then the template's own.
"""

from collections.abc import Iterable
from dataclasses import replace

from netlab.controllers import names
from netlab.controllers.deployments import CAUSE, same_template
from netlab.model import Pod, Revision, Workload

LABEL = "controller-revision-hash"


def label_of(workload: Workload, revision: Revision) -> str:
    """The value of LABEL: a StatefulSet's has its name before the hash."""
    return f"{workload.meta.name}-{revision.hash}" if workload.kind == "StatefulSet" else revision.hash


def is_of(pod: Pod, workload: Workload, revision: Revision) -> bool:
    return pod.meta.labels.get(LABEL) == label_of(workload, revision)


def with_current(workload: Workload, pods: Iterable[Pod]) -> Workload:
    """The workload whose last revision is its template's; the same object when it is already. Old ones beyond the limit go."""
    known = workload.revisions
    if known and same_template(known[-1].template, workload.template):
        return workload
    number = known[-1].number + 1 if known else 1
    cause = workload.meta.annotations.get(CAUSE, "")
    again = next((one for one in known if same_template(one.template, workload.template)), None)
    if again is not None:
        revision = replace(again, number=number)
    else:
        hash_ = (_hash_of_dump(workload, pods) if not known else "") or _hash(workload)
        while any(one.hash == hash_ for one in known):
            hash_ = names.template_hash(hash_)
        revision = Revision(number, hash_, workload.template, cause)
    others = [one for one in known if one is not again]
    used = {pod.meta.labels.get(LABEL) for pod in pods}
    idle = [one for one in others if label_of(workload, one) not in used]
    dropped = idle[: max(len(idle) - workload.rollout.history, 0)]
    return replace(workload, revisions=(*(one for one in others if one not in dropped), revision))


def _hash(workload: Workload) -> str:
    template = workload.template
    return names.template_hash((dict(template.labels), dict(template.annotations), template.manifest.get("spec", {})))


def _hash_of_dump(workload: Workload, pods: Iterable[Pod]) -> str:
    given = [pod.meta.labels[LABEL] for pod in pods if LABEL in pod.meta.labels]
    most = max(given, key=given.count) if given else ""
    return most.removeprefix(f"{workload.meta.name}-") if workload.kind == "StatefulSet" else most
