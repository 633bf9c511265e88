"""apply, delete, get, describe, scale: kubectl's verbs with kubectl's words, over the lab's API. All of them read KIND/NAME and
selectors, and tell what was not found, in one way. How objects are laid out stands in showing.py. Over 400 lines: five verbs,
half of it their options and help, over that one way.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import kernel_objects, output
from netlab.cli.output import FilesOption, LabOption, NamespaceOption
from netlab.cli.showing import Shown, print_objects, show
from netlab.errors import ApiError, InputError, Problem

if TYPE_CHECKING:
    from netlab.cli.describe import Related
    from netlab.client import Lab

Json = dict[str, Any]

ALL = ("pods", "replicationcontrollers", "services", "daemonsets", "deployments", "replicasets", "statefulsets", "jobs")
"""What `get all` means, in kubectl's order."""


def apply(files: FilesOption = None, namespace: NamespaceOption = "default", lab: LabOption = None) -> None:
    """Create or change objects from manifests. Returns when the lab has settled.

    Objects that name no namespace go into the one of -n.

    \b
    Examples:
      netlab apply -f manifests/kubia.yaml
      netlab apply -f manifests/ -n test
      kubectl create deployment web --image=nginx --dry-run=client -o yaml | netlab apply -f -
    """
    documents = read(files, "apply", namespace)
    versions = {(document["kind"], document["metadata"]["name"]): document["apiVersion"] for document in documents}
    for done in output.attach(lab).verb("apply", objects=documents):  # not lab.apply, which warns once more
        kind, name = done["kind"], done["name"]
        print(f"{identity(kind, versions.get((kind, name), ''))}/{name} {done['action']}")
        output.warn([line for line in done.get("warning", "").splitlines() if line])


def delete(
    what: Annotated[list[str] | None, typer.Argument(metavar="KIND/NAME", help="Objects, or a kind and then names.")] = None,
    files: FilesOption = None,
    selector: Annotated[
        str, typer.Option("-l", "--selector", metavar="SELECTOR", help="Of a kind those with these labels.")
    ] = "",
    everything: Annotated[bool, typer.Option("--all", help="Of a kind all that are in the namespace.")] = False,
    cascade: Annotated[
        str, typer.Option(help="background (its pods go too) or orphan (they stay); also true and false.")
    ] = "background",
    ignore: Annotated[bool, typer.Option("--ignore-not-found", help="What is not there is no error.")] = False,
    grace: Annotated[
        int, typer.Option("--grace-period", metavar="SECONDS", help="How long pods may take; -1: as they say.")
    ] = -1,
    force: Annotated[bool, typer.Option("--force", help="With --grace-period=0: gone at once, nothing is waited for.")] = False,
    now: Annotated[bool, typer.Option("--now", help="The same as --grace-period=1.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when pods are gone, not when they were told.")] = True,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> None:
    """Delete objects. Returns when the lab has settled.

    \b
    Examples:
      netlab delete svc/kubia
      netlab delete pod kubia-x7k2p
      netlab delete pod kubia-x7k2p --grace-period=0 --force
      netlab delete po,svc -l app=kubia
      netlab delete jobs --all
      netlab delete rc/kubia --cascade=orphan
      netlab delete -f manifests/kubia.yaml
    """
    mode = output.choose(CASCADE.get(cascade, cascade), ("background", "foreground", "orphan"), "--cascade")
    seconds = grace_of(grace, force, now)
    chosen = bool(selector) or everything
    ignore = ignore or chosen  # what was found may go along with an object before it
    targets = [] if chosen else [(kind, name, namespace, "") for kind, name in named(what or [])]
    if files:
        targets += [target_of(document) for document in read(files, "delete", namespace)]
    if not targets and not chosen:
        raise InputError("nothing to delete: give KIND/NAME, KIND with -l SELECTOR or --all, or -f MANIFEST")
    kinds = kinds_alone(what or [], "-l" if selector else "--all") if chosen else []
    running = output.attach(lab)
    if chosen:
        targets += [*(one for kind in kinds for one in those_of(running, kind, namespace, selector))]
        if not targets:
            output.message("No resources found")
    missing: list[Problem] = []
    wrong: list[Problem] = []
    leaving: list[Json] = []
    for kind, name, where, version in targets:
        try:
            cascading = "orphan" if mode == "orphan" else "background"
            deleted = running.delete(kind, name, where, cascading, grace_s=seconds, wait=False)
            leaving += [deleted] if kind in ("pods", "Pod") else []
            print(f'{identity(kind, version)} "{name}" {"force " if seconds == 0 else ""}deleted', flush=True)
        except ApiError as error:
            if error.code != 404:
                raise
            missing.append(Problem(str(error)))
        except InputError as error:
            wrong += error.problems
    for found in leaving if wait else ():
        running.wait_gone(found)
    if wrong or (missing and not ignore):
        raise InputError((*wrong, *(() if ignore else missing)))


def kinds_alone(words: Sequence[str], option: str) -> list[str]:
    """The kinds that -l and --all choose from: `po,svc`, without names."""
    if len(words) != 1 or "/" in words[0]:
        raise InputError(f"{option} chooses among the objects of a kind: give KIND[,KIND...] and no names")
    return [kind for kind, _ in asked(words[0], [])]


def those_of(running: "Lab", kind: str, namespace: str, selector: str) -> list[tuple[str, str, str, str]]:
    """(kind, name, namespace, apiVersion) of the objects of a kind that have these labels."""
    found = running.get(kind, None, namespace, selector)
    return [(kind, one["metadata"]["name"], one["metadata"].get("namespace") or namespace, "") for one in found]


def grace_of(seconds: int, force: bool, now: bool) -> float | None:
    """The grace period that kubectl makes of its options; None: as each pod says."""
    if now and seconds != -1:
        raise InputError("--now and --grace-period cannot be specified together")
    if force and seconds > 0:
        raise InputError("--force and --grace-period greater than 0 cannot be specified together")
    if force:
        return 0.0
    if now or seconds == 0:  # 0 without --force is a second, so that nobody loses by accident what a program has yet to write
        return 1.0
    return None if seconds < 0 else float(seconds)


CASCADE = {"true": "background", "false": "orphan"}


def get(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND[,KIND...]|KIND/NAME", help="po, svc, deploy, ...; hosts, links, routes, rules, conntrack, daemons."
        ),
    ],
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME")] = None,
    all_namespaces: Annotated[bool, typer.Option("-A", "--all-namespaces", help="Objects of every namespace.")] = False,
    namespace: NamespaceOption = "default",
    selector: Annotated[
        str, typer.Option("-l", "--selector", metavar="SELECTOR", help="Only objects with these labels: app=web,tier!=x.")
    ] = "",
    form: Annotated[str | None, typer.Option("-o", "--output", metavar="wide|json|yaml|name")] = None,
    show_labels: Annotated[bool, typer.Option("--show-labels", help="Labels as the last column.")] = False,
    label_columns: Annotated[
        list[str] | None, typer.Option("-L", "--label-columns", metavar="LABEL,...", help="These labels as columns.")
    ] = None,
    fields: Annotated[
        str, typer.Option("--field-selector", metavar="SELECTOR", help="status.phase=Running, spec.nodeName!=node-170, ...")
    ] = "",
    sort_by: Annotated[str, typer.Option("--sort-by", metavar="JSONPATH", help="In this order: .spec.nodeName")] = "",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Then a line for every change, until Ctrl-C.")] = False,
    lab: LabOption = None,
) -> None:
    """Show objects as kubectl does. Links, routes, rules and conntrack are read from the kernel.

    \b
    Examples:
      netlab get svc
      netlab get po -A -o wide
      netlab get po,svc,ep -l app=kubia
      netlab get svc kubia -o yaml
      netlab get po -L app --sort-by .spec.nodeName --field-selector status.phase=Running
      netlab get po -w
      netlab get routes node/node-170
      netlab get rules node/node-170
    """
    output.choose(form, ("wide", "json", "yaml", "name"), "-o")
    from netlab.cli import choosing

    requests = [*asked(kind, names or [])]
    fits = {one: choosing.by_fields(one, fields) for one, _ in requests}
    running = output.attach(lab)
    where = None if all_namespaces else namespace

    def fetched(one: str, wanted: str | None) -> list[Json]:
        return [item for item in fetch(running, one, wanted, where, selector) if fits[one](item)]

    found, missing = each(requests, fetched)
    if sort_by:
        found = [(one, choosing.sorted_by(group, sort_by)) for one, group in found]
    shown = Shown(all_namespaces, namespace, form == "wide", show_labels, choosing.label_columns(label_columns or ()))
    if form in (None, "wide"):
        show(found, shown, quiet=bool(missing) or watch)
    else:
        print_objects(found, form, single=len(requests) == 1 and requests[0][1] is not None)
    if watch:
        from netlab.cli.keeping_on import follow

        follow(running, requests, fetched, found, shown, form)
    if missing:
        raise InputError(tuple(missing))


def each(
    requests: Sequence[tuple[str, str | None]], fetched: Callable[[str, str | None], list[Json]]
) -> tuple[list[tuple[str, list[Json]]], list[Problem]]:
    """What was found, and of several requests what was not, in the API's words: the others are shown all the same."""
    found: list[tuple[str, list[Json]]] = []
    missing: list[Problem] = []
    for one, wanted in requests:
        try:
            found.append((one, fetched(one, wanted)))
        except ApiError as error:
            if error.code != 404 or len(requests) == 1:
                raise
            missing.append(Problem(f"{error} (NotFound)"))
    return found, missing


def describe(
    kind: Annotated[str, typer.Argument(metavar="KIND|KIND/NAME")],
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME")] = None,
    namespace: NamespaceOption = "default",
    selector: Annotated[str, typer.Option("-l", "--selector", metavar="SELECTOR")] = "",
    lab: LabOption = None,
) -> None:
    """Everything about an object, laid out as kubectl does.

    \b
    Examples:
      netlab describe svc kubia
      netlab describe node/node-170
      netlab describe po -l app=kubia
    """
    from netlab.cli import describe as description

    running = output.attach(lab)
    items = [item for one, wanted in asked(kind, names or []) for item in fetch(running, one, wanted, namespace, selector)]
    if not items:
        output.message(f"No resources found in {namespace} namespace.")
    print("\n\n".join(description.text(item, related(running, item)) for item in items), end="")


def links_of(running: "Lab", target: str) -> list[Json]:
    """The target's links as the kernel has them."""
    from netlab.client import View

    return View(running, target).links()


def related(running: "Lab", item: Json) -> "Related":
    """The objects that the description of this one shows beside it, and what was recorded of it."""
    found = beside(running, item)
    if item["kind"] not in WITH_EVENTS:
        return found
    where, name = item["metadata"].get("namespace"), item["metadata"]["name"]
    wanted = (item["kind"], where or "", name)
    events = running.get("events", None, where or "default")
    told = [(one, one["involvedObject"]) for one in events]
    mine = [one for one, what in told if (what["kind"], what.get("namespace", ""), what["name"]) == wanted and is_of(what, item)]
    return replace(found, events=mine)


WITH_EVENTS = ("Pod", "Node", "ReplicationController", "ReplicaSet", "Deployment", "DaemonSet", "StatefulSet", "Job")


def is_of(what: Json, item: Json) -> bool:
    """Whether the Event is about this very object, and not about one of the same name before it."""
    return not what.get("uid") or what["uid"] == item["metadata"].get("uid")


def beside(running: "Lab", item: Json) -> "Related":
    """The objects that the description of this one shows beside it."""
    from netlab.cli.describe import Related

    now = datetime.now(UTC)
    where, name = item["metadata"].get("namespace"), item["metadata"]["name"]
    match item["kind"]:
        case "Service":
            return Related(now, slices=running.get("endpointslices", None, where, f"kubernetes.io/service-name={name}"))
        case "Node":
            pods = running.get("pods", None, None)
            return Related(
                now, pods=[pod for pod in pods if pod["spec"].get("nodeName") == name], links=links_of(running, f"node/{name}")
            )
        case "Pod" if item["spec"].get("nodeName") and item["status"].get("phase") == "Running":
            return Related(now, links=links_of(running, f"pod/{where}/{name}"))
        case "ReplicationController" | "ReplicaSet" | "DaemonSet" | "StatefulSet" | "Job":
            return Related(now, pods=owned(running.get("pods", None, where), item))
        case "Deployment":
            return Related(now, replicasets=owned(running.get("replicasets", None, where), item))
        case "Ingress":
            problems = running.verb("problems", ingress=name, namespace=where)
            services, slices = running.get("services", None, where), running.get("endpointslices", None, where)
            return Related(now, slices=slices, services=services, problems=problems)
        case _:
            return Related(now)


def owned(items: Iterable[Json], owner: Json) -> list[Json]:
    def by(one: Json) -> bool:
        owners = one["metadata"].get("ownerReferences") or ()
        return any(ref.get("kind") == owner["kind"] and ref.get("name") == owner["metadata"]["name"] for ref in owners)

    return [one for one in items if by(one)]


def scale(
    what: Annotated[list[str], typer.Argument(metavar="KIND/NAME")],
    replicas: Annotated[int, typer.Option("--replicas", min=0, help="How many pods it shall keep.")],
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> None:
    """Change how many pods a workload keeps. Returns when they answer.

    \b
    Examples:
      netlab scale rc/kubia --replicas 5
      netlab scale deploy web --replicas 0
    """
    targets = [*named(what)]
    running = output.attach(lab)
    for kind, name in targets:
        running.scale(kind, name, replicas, namespace)
        print(f"{identity(kind)}/{name} scaled")


# ---------------------------------------------------------------- what was asked for


def read(files: Sequence[str] | None, verb: str, namespace: str) -> list[Json]:
    """The objects of the manifests as JSON, checked here so that errors name file and line; warnings are shown."""
    import sys

    from netlab import manifest

    if not files:
        raise InputError("give the manifests with -f FILE, -f DIRECTORY or -f -")
    loaded = manifest.read_objects(manifest.read_paths(files, sys.stdin.buffer.read))
    if verb == "apply":  # what is not acted on goes as it came: without a word
        output.warn(loaded.warnings)
    if not loaded.objects:
        raise InputError(f"no objects passed to {verb}")
    documents = [dict(obj.manifest) for obj in loaded.objects]
    return documents if namespace == "default" else placed(documents, namespace)


def placed(documents: Sequence[Json], namespace: str) -> list[Json]:
    """The objects; those that name no namespace are in this one now. Raises InputError where one names another, as kubectl."""
    from netlab import manifest

    known = {info.kind for info in manifest.kinds.table() if info.namespaced}
    wrong = []
    found = []
    for document in documents:
        own = document["metadata"].get("namespace")
        if own and own != namespace:
            wrong.append(
                Problem(f"{document['kind']} {document['metadata']['name']}: its namespace {own} does not match -n {namespace}")
            )
        into = {"namespace": namespace} if document["kind"] in known else {}
        found.append({**document, "metadata": {**document["metadata"], **into}})
    if wrong:
        raise InputError(tuple(wrong))
    return found


def target_of(document: Json) -> tuple[str, str, str, str]:
    """(kind, name, namespace, apiVersion) of a manifest."""
    meta = document["metadata"]
    return document["kind"], meta["name"], meta.get("namespace") or "default", document["apiVersion"]


def named(words: Sequence[str]) -> Iterable[tuple[str, str]]:
    """(plural kind, name) of `KIND/NAME...` and of `KIND NAME...`."""
    if words and "/" not in words[0]:
        if len(words) == 1:
            raise InputError(f"{words[0]!r}: expected KIND/NAME, such as deploy/web")
        kinds = plural(words[0])
        return [(kinds, name) for name in words[1:]]
    return [(plural(kind), name) for kind, name in map(output.split_ref, words)]


def asked(kind: str, names: Sequence[str]) -> Iterable[tuple[str, str | None]]:
    """(plural kind, name or None for all) of what `get` and `describe` were given."""
    if "/" in kind:
        return named([kind, *names])
    wanted: list[str | None] = [*names] or [None]
    kinds = [one for word in kind.split(",") for one in (ALL if word == "all" else (plural(word),))]
    slashed = next((name for name in names if "/" in name), "")
    if slashed and not set(kinds) <= kernel_objects.KIND.keys():
        raise InputError(
            f"{slashed}: there is no need to name a kind before KIND/NAME: `get {slashed}`, not `get {kind} {slashed}`"
        )
    return [(one, name) for one in kinds for name in wanted]


def plural(word: str) -> str:
    """The API's plural of a kind as users write it, netlab's own kinds among them; raises InputError with a suggestion."""
    from netlab.manifest import kinds

    return kinds.find(word).plural


def identity(kind: str, api_version: str = "") -> str:
    """singular.group of a kind, as kubectl's messages have it. A kind that Kubernetes does not have is its manifest's word."""
    from netlab.manifest import kinds

    own = not api_version or api_version.rpartition("/")[0] in kinds.groups()  # else a custom resource, such as Knative's Service
    info = kinds.by_name().get(kind.lower()) if own else None
    group, slash, _ = (info.api_version if info else api_version).partition("/")
    singular = info.singular if info else kind.lower()
    return f"{singular}.{group}" if slash else singular


def fetch(running: "Lab", kind: str, name: str | None, namespace: str | None, selector: str) -> list[Json]:
    """Objects of a kind: Kubernetes' from the API, netlab's own from the topology (hosts) and the kernel (the others)."""
    if kind in kernel_objects.KIND:
        return kernel_objects.fetch(running, kind, name)
    return running.get(kind, name, namespace, selector)
