"""ReplicationController, ReplicaSet, Deployment and DaemonSet to the model.

Decides what selector a workload without one has: a ReplicationController and the old extensions/v1beta1 and
apps/v1beta1 forms take the template's labels, as the API server defaulted them. Refuses to know how many pods exist.
"""

from netlab.manifest.meta import EMPTY, Json, labels, raw, read_meta, read_selector
from netlab.manifest.pods import read_template, template_labels
from netlab.manifest.problems import Place, Report
from netlab.model import Labels, Selector, Workload, WorkloadKind

_SELECTOR_DEFAULTED = ("v1", "extensions/v1beta1", "apps/v1beta1")


def read_workload(kind: WorkloadKind, data: Json, manifest: Json, place: Place, report: Report) -> Workload:
    """One workload; `data` is checked, `manifest` as given."""
    spec = data.get("spec") or EMPTY
    at = (place, "spec")
    template = spec.get("template") or EMPTY
    template_manifest = raw(manifest, "spec", "template")
    replicas = spec.get("replicas")
    return Workload(
        kind=kind,
        meta=read_meta(data, place, report, kind, True),
        replicas=1 if replicas is None else replicas,
        selector=_selector(kind, data, manifest, at, report),
        template=read_template(
            template, template_manifest if isinstance(template_manifest, dict) else EMPTY, (at, "template"), report
        ),
        manifest=manifest,
    )


def _selector(kind: WorkloadKind, data: Json, manifest: Json, place: Place, report: Report) -> Selector:
    spec = data.get("spec") or EMPTY
    wanted, given = template_labels(data), spec.get("selector")
    at = (place, "selector")
    before = len(report.found)
    if kind == "ReplicationController":
        selector = Selector(labels(given))
    else:
        selector = read_selector(given, at, report)
    untouched = _untouched(spec, manifest) and len(report.found) == before
    empty = not selector.labels and not selector.expressions
    if empty and data.get("apiVersion") in _SELECTOR_DEFAULTED:
        if not wanted and spec.get("template"):
            report.problem((((place, "template"), "metadata"), "labels"), "required when there is no selector")
        return Selector(wanted)
    if empty and spec.get("template") and spec.get("selector") is raw(manifest, "spec", "selector"):
        hint = "must not be empty" if given is not None else "required, but missing"
        report.problem(at, f"{hint}; it takes matchLabels that the template's labels have{_suggest(wanted)}")
    elif not empty and untouched and not selector.matches(wanted):
        report.problem(at, f"does not match the template's labels{_suggest(wanted)}")
    return selector


def _suggest(wanted: Labels) -> str:
    if not wanted:
        return " (it has none)"
    return " (" + ", ".join(f"{key}: {value}" for key, value in list(wanted.items())[:3]) + ")"


def _untouched(spec: Json, manifest: Json) -> bool:
    """Whether `check` found selector and template labels right: else a mismatch is only the echo of a mistake."""
    template = spec.get("template") or EMPTY
    same_labels = template.get("metadata") is raw(manifest, "spec", "template", "metadata")
    return same_labels and spec.get("selector") is raw(manifest, "spec", "selector")
