"""A container's command and environment as its manifest writes them: references to fields, ConfigMaps and Secrets, `$(VAR)`.

Decides what each reference stands for and what is missing. Refuses to know Services' variables (discovery.py) and who starts.
Source: kubernetes pkg/kubelet/kubelet_pods.go makeEnvironmentVariables; third_party/forked/golang/expansion.
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

from netlab.model import Cluster, Container, EnvSource, Key, Pod

_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_KEYED = re.compile(r"metadata\.(labels|annotations)\['([^']*)'\]")
KINDS: Mapping[str, str] = {"configmap": "ConfigMap", "secret": "Secret"}


def resolved(
    cluster: Cluster, pod: Pod, container: Container, services: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """(command, variables): everything replaced. `services`: HOSTNAME and the variables of Services, which `env` may overrule."""
    found = dict(services)
    for source in container.env_from:
        data = _data(cluster, pod, source.kind, source.name) or {}
        found.update({source.prefix + key: text for key, text in data.items()})
    for name, value in container.env:
        if isinstance(value, str):
            found[name] = expanded(value, found)
        elif (text := value_of(cluster, pod, value)) is not None:
            found[name] = text
    return tuple(expanded(word, found) for word in container.command), found


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`$(NAME)` replaced; `$$` is a dollar sign; a name that is not known stays as it is written."""
    if "$" not in text:
        return text

    def one(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else variables.get(match[2], match[0])

    return _REFERENCE.sub(one, text)


def value_of(cluster: Cluster, pod: Pod, source: EnvSource) -> str | None:
    """What the reference stands for; None: there is no such thing."""
    if source.kind == "field":
        return field(cluster, pod, source.key)
    data = _data(cluster, pod, source.kind, source.name)
    return None if data is None else data.get(source.key)


def missing(cluster: Cluster, pod: Pod, container: Container) -> str:
    """Why the container cannot be started yet, in the kubelet's words; '' when nothing is missing."""
    return next(_missing(cluster, pod, container), "")


def _missing(cluster: Cluster, pod: Pod, container: Container) -> Iterator[str]:
    for whole in container.env_from:
        if not whole.optional and _data(cluster, pod, whole.kind, whole.name) is None:
            yield f'{whole.kind} "{whole.name}" not found'
    for _, source in container.env:
        if isinstance(source, str) or source.optional or source.kind == "field":
            continue
        data = _data(cluster, pod, source.kind, source.name)
        if data is None:
            yield f'{source.kind} "{source.name}" not found'
        elif source.key not in data:
            yield f"couldn't find key {source.key} in {KINDS[source.kind]} {pod.meta.namespace}/{source.name}"
    used = {mount.volume for mount in container.mounts}
    for volume in pod.spec.volumes:
        for kind, name, _, optional in volume.sources if volume.name in used else ():
            if kind != "field" and not optional and _data(cluster, pod, kind, name) is None:
                yield f'MountVolume.SetUp failed for volume "{volume.name}" : {kind} "{name}" not found'


def field(cluster: Cluster, pod: Pod, path: str) -> str | None:
    """A field of the pod by its path, as the downward API gives it; None for one that it does not give."""
    node = cluster.nodes.get(pod.node)
    if keyed := _KEYED.fullmatch(path):
        return (pod.meta.labels if keyed[1] == "labels" else pod.meta.annotations).get(keyed[2], "")
    match path:
        case "metadata.name":
            return pod.meta.name
        case "metadata.namespace":
            return pod.meta.namespace
        case "metadata.uid":
            return pod.meta.uid
        case "metadata.labels" | "metadata.annotations":
            pairs = pod.meta.labels if path == "metadata.labels" else pod.meta.annotations
            return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))
        case "spec.nodeName":
            return pod.node
        case "spec.serviceAccountName":
            return str(pod.manifest.get("spec", {}).get("serviceAccountName") or "default")
        case "status.podIP" | "status.podIPs":
            return ",".join(map(str, pod.addresses if path.endswith("s") else pod.addresses[:1]))
        case "status.hostIP" | "status.hostIPs":
            addresses = node.addresses if node is not None else ()
            return ",".join(map(str, addresses if path.endswith("s") else addresses[:1]))
        case _:
            return None


def _data(cluster: Cluster, pod: Pod, kind: str, name: str) -> Mapping[str, str] | None:
    """The texts of a ConfigMap or Secret of the pod's namespace; None when it is not there."""
    held = cluster.others.get((KINDS[kind], Key(pod.meta.namespace, name)))
    if held is None:
        return None
    plain = {key: str(text) for key, text in (held.manifest.get("data") or {}).items()}
    if kind == "configmap":
        binary = {key: _decoded(str(text)) for key, text in (held.manifest.get("binaryData") or {}).items()}
        return {**plain, **binary}
    given = {key: str(text) for key, text in (held.manifest.get("stringData") or {}).items()}
    return {**{key: _decoded(text) for key, text in plain.items()}, **given}


def texts(cluster: Cluster, pod: Pod, kind: str, name: str) -> Mapping[str, str]:
    """The same for a volume; nothing when it is not there."""
    return _data(cluster, pod, kind, name) or {}


def _decoded(text: str) -> str:
    """Base64 to text; bytes that are no UTF-8 are kept as surrogates, for files. What is no base64 stays as it is."""
    try:
        return base64.b64decode(text, validate=True).decode(errors="surrogateescape")
    except binascii.Error:
        return text
