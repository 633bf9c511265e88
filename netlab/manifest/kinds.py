"""The kinds of Kubernetes objects (and netlab's own five): names, short names, API group, and whether they live in a namespace.

Decides how `get deploy`, `svc/web` and `kind: Deployment` are understood. Refuses to know what the objects hold.
"""

from dataclasses import dataclass
from functools import cache

from netlab.errors import InputError
from netlab.manifest.problems import did_you_mean

_V1 = """Node nodes no - | Namespace namespaces ns - | Pod pods po | Service services svc | Endpoints endpoints ep
| ReplicationController replicationcontrollers rc | ConfigMap configmaps cm | Secret secrets | ServiceAccount serviceaccounts sa
| PersistentVolume persistentvolumes pv - | PersistentVolumeClaim persistentvolumeclaims pvc | Event events ev
| LimitRange limitranges limits | ResourceQuota resourcequotas quota | PodTemplate podtemplates
| ComponentStatus componentstatuses cs -
| Binding bindings"""
_GROUPS = {
    "v1": _V1,
    "apps/v1": """Deployment deployments deploy | ReplicaSet replicasets rs | DaemonSet daemonsets ds
        | StatefulSet statefulsets sts
        | ControllerRevision controllerrevisions""",
    "discovery.k8s.io/v1": "EndpointSlice endpointslices",
    "networking.k8s.io/v1": """Ingress ingresses ing | IngressClass ingressclasses - | NetworkPolicy networkpolicies netpol
        | IPAddress ipaddresses ip - | ServiceCIDR servicecidrs -""",
    "batch/v1": "Job jobs | CronJob cronjobs cj",
    "autoscaling/v2": "HorizontalPodAutoscaler horizontalpodautoscalers hpa",
    "policy/v1": "PodDisruptionBudget poddisruptionbudgets pdb | PodSecurityPolicy podsecuritypolicies psp -",
    "rbac.authorization.k8s.io/v1": """Role roles | RoleBinding rolebindings | ClusterRole clusterroles -
        | ClusterRoleBinding clusterrolebindings -""",
    "storage.k8s.io/v1": """StorageClass storageclasses sc - | VolumeAttachment volumeattachments - | CSIDriver csidrivers -
        | CSINode csinodes - | CSIStorageCapacity csistoragecapacities""",
    "scheduling.k8s.io/v1": "PriorityClass priorityclasses pc -",
    "coordination.k8s.io/v1": "Lease leases",
    "node.k8s.io/v1": "RuntimeClass runtimeclasses -",
    "apiextensions.k8s.io/v1": "CustomResourceDefinition customresourcedefinitions crd crds -",
    "apiregistration.k8s.io/v1": "APIService apiservices -",
    "admissionregistration.k8s.io/v1": """MutatingWebhookConfiguration mutatingwebhookconfigurations -
        | ValidatingWebhookConfiguration validatingwebhookconfigurations -
        | ValidatingAdmissionPolicy validatingadmissionpolicies -
        | ValidatingAdmissionPolicyBinding validatingadmissionpolicybindings -""",
    "certificates.k8s.io/v1": "CertificateSigningRequest certificatesigningrequests csr -",
    "flowcontrol.apiserver.k8s.io/v1": "FlowSchema flowschemas - | PriorityLevelConfiguration prioritylevelconfigurations -",
    "netlab/v1": "Host hosts - | Link links - | Route routes - | Rule rules - | Conntrack conntrack - | Daemon daemons -",
}
OLD_GROUPS = ("extensions/v1beta1", "apps/v1beta1", "apps/v1beta2", "networking.k8s.io/v1beta1", "discovery.k8s.io/v1beta1")


@dataclass(frozen=True, slots=True)
class KindInfo:
    """One kind: `kind` and `api_version` as in manifests, `plural`, `singular` and `short_names` as kubectl takes them."""

    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...]
    api_version: str
    namespaced: bool

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]


@cache
def table() -> tuple[KindInfo, ...]:
    """All kinds, the core ones first."""
    found = []
    for api_version, text in _GROUPS.items():
        for words in (entry.split() for entry in text.split("|")):
            kind, plural, *rest = words
            short = tuple(word for word in rest if word != "-")
            found.append(KindInfo(kind, plural, kind.lower(), short, api_version, "-" not in rest))
    return tuple(found)


@cache
def groups() -> frozenset[str]:
    """The API groups of Kubernetes itself, old ones included."""
    return frozenset(version.rpartition("/")[0] for version in (*_GROUPS, *OLD_GROUPS))


@cache
def by_kind() -> dict[str, KindInfo]:
    """`Deployment` -> its KindInfo."""
    return {info.kind: info for info in table()}


@cache
def by_name() -> dict[str, KindInfo]:
    """Every word that kubectl takes for a kind, in lower case."""
    words: dict[str, KindInfo] = {}
    for info in table():
        for word in (info.plural, info.singular, *info.short_names):
            words.setdefault(word, info)
    return words


def custom(kind: str, api_version: str, namespaced: bool) -> KindInfo:
    """A kind that no table knows: its names are made from the kind, as most custom resource definitions make them."""
    name = kind.lower()
    return KindInfo(kind, name if name.endswith("s") else name + "s", name, (), api_version, namespaced)


def find(word: str) -> KindInfo:
    """The kind that `word` names: `deploy`, `Deployment`, `deployments`, `deployments.apps`.

    Raises: InputError with what was probably meant.
    """
    plain, _, group = word.lower().partition(".")
    info = by_name().get(plain)
    if info is not None and (not group or info.group == group or info.group.startswith(group)):
        return info
    meant = did_you_mean(plain, by_name())
    raise InputError(f'there is no kind "{word[:60]}"' + (f"; did you mean {meant}?" if meant else "; `netlab get pods` for one"))
