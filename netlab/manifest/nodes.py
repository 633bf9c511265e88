"""Node objects to the model.

Decides that a control plane is what its taint says and not its label: k3s labels its server and lets pods run there.
Refuses to know the topology.
"""

from ipaddress import ip_address, ip_network

from netlab.manifest.formats import ip
from netlab.manifest.meta import EMPTY, Json, items, read_meta
from netlab.manifest.pods import CONTROL_PLANE
from netlab.manifest.problems import Place, Report
from netlab.model import Address, Network, Node, Taint

_ADDRESS_TYPES = ("InternalIP", "ExternalIP")


def read_node(data: Json, manifest: Json, place: Place, report: Report) -> Node:
    """One Node; InternalIPs come first among its addresses."""
    spec, status = data.get("spec") or EMPTY, data.get("status") or EMPTY
    conditions = {entry.get("type"): entry.get("status") for _, entry in items(status.get("conditions"))}
    return Node(
        meta=read_meta(data, place, report, "Node", False),
        addresses=_addresses(status, (place, "status"), report),
        pod_cidrs=_pod_cidrs(spec, (place, "spec"), report),
        ready=conditions.get("Ready", "True") == "True",
        unschedulable=bool(spec.get("unschedulable")),
        taints=tuple(_taint(taint) for _, taint in items(spec.get("taints")) if not _is_state(taint)),
        control_plane=any(_keeps_pods_away(taint) for _, taint in items(spec.get("taints"))),
        manifest=manifest,
    )


def _is_state(taint: Json) -> bool:
    """Taints that follow from what a node is or how it does: netlab makes them itself."""
    return _keeps_pods_away(taint) or str(taint.get("key")).startswith("node.kubernetes.io/")


def _taint(taint: Json) -> Taint:
    return Taint(taint.get("key") or "", taint.get("effect") or "NoSchedule", taint.get("value") or "")


def _keeps_pods_away(taint: Json) -> bool:
    return taint.get("key") in CONTROL_PLANE and taint.get("effect") in ("NoSchedule", "NoExecute")


def _addresses(status: Json, place: Place, report: Report) -> tuple[Address, ...]:
    found: list[Address] = []
    for wanted in _ADDRESS_TYPES:
        for index, entry in items(status.get("addresses")):
            if entry.get("type") != wanted or not entry.get("address"):
                continue
            if error := ip(entry["address"]):
                report.problem((((place, "addresses"), index), "address"), error)
            elif (address := ip_address(entry["address"])) not in found and (wanted == "InternalIP" or not found):
                found.append(address)
    return tuple(found)


def _pod_cidrs(spec: Json, place: Place, report: Report) -> tuple[Network, ...]:
    first = [spec["podCIDR"]] if spec.get("podCIDR") else []
    found = tuple(ip_network(text) for text in dict.fromkeys([*first, *(text for _, text in items(spec.get("podCIDRs")))]))
    if len({network.version for network in found}) < len(found):
        report.problem((place, "podCIDRs"), "a node has one CIDR of each family, and podCIDR is the first of podCIDRs")
    return found
