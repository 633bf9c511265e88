"""Decides the IP families of a Service: what ipFamilyPolicy and ipFamilies mean in this cluster, and what is refused.

Words and order of the rules: Kubernetes' pkg/registry/core/service/storage/alloc.go. Refuses to know addresses. A cluster has the
families of its serviceCIDRs, the first is the primary one; a Service that says nothing gets that one alone.
"""

from collections.abc import Iterator
from dataclasses import replace

from netlab.ipam import Family
from netlab.model import ClusterConfig, Service, ServiceType

OTHER: dict[Family, Family] = {"IPv4": "IPv6", "IPv6": "IPv4"}


def of_cluster(config: ClusterConfig) -> tuple[Family, ...]:
    """The families in which Services get addresses, the primary one first."""
    return tuple("IPv4" if network.version == 4 else "IPv6" for network in config.service_cidrs)


def completed(config: ClusterConfig, service: Service, previous: Service | None) -> Service:
    """The Service with its families and their policy, from what its manifest says, what it had, and what the cluster has."""
    if service.type is ServiceType.EXTERNAL_NAME or not service.manifest:
        return service
    spec = service.manifest.get("spec") or {}
    configured = of_cluster(config)
    policy = service.ip_family_policy
    named: tuple[Family, ...] = service.ip_families if spec.get("ipFamilies") or service.cluster_ips else ()
    if previous is not None and previous.type is not ServiceType.EXTERNAL_NAME:
        named = named or previous.ip_families[:1]
        policy = policy if spec.get("ipFamilyPolicy") or len(named) > 1 else previous.ip_family_policy
    elif service.headless and not service.selector and len(configured) > 1 and not spec.get("ipFamilyPolicy") and not named:
        policy = "RequireDualStack"  # nobody but the user knows what its endpoints will be
    families = named or configured[:1]
    if policy != "SingleStack" and len(families) == 1 and OTHER[families[0]] in configured:
        families = (*families, OTHER[families[0]])
    return replace(service, ip_families=families, ip_family_policy=policy)


def refusals(config: ClusterConfig, service: Service) -> Iterator[str]:
    """Why the API server would not take these families. `service` is completed."""
    if service.type is ServiceType.EXTERNAL_NAME or (service.headless and not service.selector):
        return
    configured = of_cluster(config)
    for index, family in enumerate(service.ip_families):
        if family not in configured:
            yield f'spec.ipFamilies[{index}]: Invalid value: "{family}": not configured on this cluster'
    if service.ip_family_policy == "RequireDualStack" and len(configured) < 2:
        yield (
            'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services'
            " (podCIDR and serviceCIDR of both families are wanted)"
        )
    for index, address in enumerate(service.cluster_ips):
        if index < len(service.ip_families) and service.ip_families[index] != f"IPv{address.version}":
            wanted = service.ip_families[index]
            yield f"spec.clusterIPs[{index}]: Invalid value: {address}: expected an {wanted} value as indicated by `ipFamilies`"
