"""ReplicationController, ReplicaSet, Deployment, DaemonSet, StatefulSet and Job to the model.

Decides what selector and labels a workload without them has: a ReplicationController and the old extensions/v1beta1 and
apps/v1beta1 forms take the template's labels, as the API server defaulted them. Refuses to know how many pods exist.
"""

from dataclasses import replace
from typing import Literal

from netlab.manifest.meta import EMPTY, Json, labels, raw, read_meta, read_selector
from netlab.manifest.pods import read_template, template_labels
from netlab.manifest.problems import Place, Report
from netlab.model import Batch, IntOrPercent, Labels, Rollout, Selector, Stateful, Workload, WorkloadKind

_DEFAULTED = ("v1", "extensions/v1beta1", "apps/v1beta1")


def read_workload(kind: WorkloadKind, data: Json, manifest: Json, place: Place, report: Report) -> Workload:
    """One workload; `data` is checked, `manifest` as given."""
    spec = data.get("spec") or EMPTY
    at = (place, "spec")
    template = spec.get("template") or EMPTY
    template_manifest = raw(manifest, "spec", "template")
    replicas = spec.get("replicas")
    meta = read_meta(data, place, report, kind, True)
    if not meta.labels and data.get("apiVersion") in _DEFAULTED:
        meta = replace(meta, labels=template_labels(data))
    if kind == "Job":
        template_manifest = _of_job(meta.name, template_manifest)
    restart = (template.get("spec") or EMPTY).get("restartPolicy", "Always")
    allowed = ("Never", "OnFailure") if kind == "Job" else ("Always",)
    if template.get("spec") and restart not in allowed:
        what = "of a Job" if kind == "Job" else "in a template"
        report.problem((((at, "template"), "spec"), "restartPolicy"), f"must be {' or '.join(allowed)} {what}, not {restart}")
    shown = template_manifest if isinstance(template_manifest, dict) else EMPTY
    read = read_template(template, shown, (at, "template"), report, spec.get("volumeClaimTemplates"))
    return Workload(
        kind=kind,
        meta=meta,
        replicas=1 if replicas is None else replicas,
        selector=_selector(kind, data, manifest, at, report),
        template=replace(read, labels=labels({**read.labels, JOB_NAME: meta.name})) if kind == "Job" else read,
        rollout=_rollout(kind, spec, at, report),
        stateful=_stateful(spec) if kind == "StatefulSet" else None,
        batch=_batch(spec) if kind == "Job" else None,
        manifest=manifest,
    )


JOB_NAME = "batch.kubernetes.io/job-name"


def _of_job(name: str, template: object) -> object:
    """A Job's template carries the Job's name as a label."""
    if not isinstance(template, dict):
        return template
    given, shown = raw(template, "metadata"), raw(template, "metadata", "labels")
    given, shown = (one if isinstance(one, dict) else {} for one in (given, shown))
    return {**template, "metadata": {**given, "labels": {**shown, JOB_NAME: name}}}


def _rollout(kind: WorkloadKind, spec: Json, place: Place, report: Report) -> Rollout:
    key = "strategy" if kind == "Deployment" else "updateStrategy"
    strategy = spec.get(key) or EMPTY
    way: Literal["RollingUpdate", "Recreate", "OnDelete"] = strategy.get("type") or "RollingUpdate"
    given = strategy.get("rollingUpdate") or EMPTY
    at = ((place, key), "rollingUpdate")
    if given and way != "RollingUpdate":
        report.problem(at, f"may not be specified when strategy type is {way}")
    defaults: dict[str, IntOrPercent] = {"maxSurge": 0, "maxUnavailable": 1}
    if kind == "Deployment":
        defaults = {"maxSurge": "25%", "maxUnavailable": "25%"}
    surge, unavailable = (default if given.get(name) is None else given[name] for name, default in defaults.items())
    if kind == "Deployment" and _nothing(surge) and _nothing(unavailable) and way == "RollingUpdate":
        report.problem((at, "maxUnavailable"), "may not be 0 when maxSurge is 0")
    if kind == "DaemonSet" and _nothing(surge) == _nothing(unavailable) and (_nothing(surge) or given.get("maxUnavailable")):
        report.problem((at, "maxUnavailable"), "exactly one of maxSurge and maxUnavailable must be other than 0")
    if kind == "DaemonSet" and not _nothing(surge) and given.get("maxUnavailable") is None:
        report.problem((at, "maxUnavailable"), "must be 0 beside maxSurge (it is 1 where it is left out)")
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    if deadline is not None and deadline <= ready:
        report.problem((place, "progressDeadlineSeconds"), "must be greater than minReadySeconds")
    history = spec.get("revisionHistoryLimit")
    return Rollout(
        type=way,
        max_surge=surge,
        max_unavailable=unavailable,
        partition=given.get("partition") or 0,
        min_ready_s=float(ready),
        deadline_s=600.0 if deadline is None else float(deadline),
        history=10 if history is None else history,
        paused=bool(spec.get("paused")),
    )


def _nothing(value: IntOrPercent) -> bool:
    return value in (0, "0%")


def _stateful(spec: Json) -> Stateful:
    return Stateful(
        service_name=spec.get("serviceName") or "",
        pod_management=spec.get("podManagementPolicy") or "OrderedReady",
        start=(spec.get("ordinals") or EMPTY).get("start") or 0,
    )


def _batch(spec: Json) -> Batch:
    parallelism, completions = spec.get("parallelism"), spec.get("completions")
    limit = spec.get("backoffLimit")
    if completions is None and parallelism is None:
        completions = 1
    return Batch(
        completions=completions,
        parallelism=1 if parallelism is None else parallelism,
        backoff_limit=6 if limit is None else limit,
        indexed=spec.get("completionMode") == "Indexed",
        suspended=bool(spec.get("suspend")),
        deadline_s=spec.get("activeDeadlineSeconds"),
        ttl_s=spec.get("ttlSecondsAfterFinished"),
    )


def _selector(kind: WorkloadKind, data: Json, manifest: Json, place: Place, report: Report) -> Selector:
    spec = data.get("spec") or EMPTY
    wanted, given = template_labels(data), spec.get("selector")
    at = (place, "selector")
    if kind == "Job" and not spec.get("manualSelector"):
        return Selector({JOB_NAME: (data.get("metadata") or EMPTY).get("name") or ""})
    before = len(report.found)
    if kind == "ReplicationController":
        selector = Selector(labels(given))
    else:
        selector = read_selector(given, at, report)
    untouched = _untouched(spec, manifest) and len(report.found) == before
    empty = not selector.labels and not selector.expressions
    if empty and data.get("apiVersion") in _DEFAULTED:
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
