"""The fields of netlab's own files, topology and scenario, as tables for `check` and for the JSON Schemas.

Decides their keys and types. Refuses to know their meaning.
"""

from functools import cache

from netlab.manifest.check import Check, compile_tables

TABLES: dict[str, str] = {
    "Topology": """apiVersion kind name:label description cluster:ClusterConfig networks:{Lan} nodes:{NodeSpec} hosts:{HostSpec}
        links:{LinkSpec}""",
    "ClusterConfig": """podCIDR:networks serviceCIDR:networks proxy:ProxyConfig fabric:bridge|routed routing:static|vxlan|bgp
        neighbours:permanent|learned loadBalancer:LoadBalancer dns:bool ingress:ingress nodeMonitorGracePeriod:duration
        unreachableToleration:duration crashLoopBackOff:CrashLoopBackOff""",
    "ProxyConfig": """mode:iptables|nftables|ipvs|userspace backend:nft|legacy layout:chains|maps masqueradeAll:bool
        detectLocal:ClusterCIDR|NodeCIDR|BridgeInterface|InterfaceNamePrefix|none bridgeInterface:device
        interfaceNamePrefix:device nodePortAddresses:nodePortAddresses localhostNodePorts:bool conntrackTCPBeLiberal:bool
        scheduler:rr|wrr|lc|wlc|sh|dh|sed|nq strictARP:bool syncPeriod:duration""",
    "CrashLoopBackOff": "initial:duration max:duration",
    "LoadBalancer": "pool:pool! announce:l2|bgp",
    "Lan": "cidr:networks! router:router nat:Nat",
    "Nat": "forwards:{forward} routed:bool hideClients:bool",
    "NodeSpec": "addresses:addresses podCIDR:networks labels:labels controlPlane:bool taints:[Taint]",
    "Taint": "key:labelKey! value:labelValue effect:NoSchedule|PreferNoSchedule|NoExecute!",
    "HostSpec": "addresses:addresses routes:{ip}",
    "LinkSpec": """rate:rate delay:duration jitter:duration loss:percent duplicate:percent reorder:percent corrupt:percent
        out:Impairment in:Impairment""",
    "Impairment": """rate:rate delay:duration jitter:duration loss:percent duplicate:percent reorder:percent
        corrupt:percent""",
    # Scenarios
    "Scenario": """apiVersion kind name:line! description topology:topologyPath manifests:[string] proxy:modes
        fabric:bridge|routed namespace:label steps:list!""",
    "Step.probe": """from:string! to:string! count:positive protocol:tcp|udp|sctp|icmp|http source:ip sourcePort:port
        timeout:period namespace:label expect:ProbeExpect""",
    "ProbeExpect": """outcome:delivered|rejected|dropped masqueraded:bool backends:countOrNames sources:names affinity:bool
        route:countOrNames
        verdict:pass|fail|inconclusive""",
    "Step.scale": "target:string! replicas:count! namespace:label",
    "Step.rollout": """target:string! action:status|restart|undo|pause|resume revision:count timeout:period
        namespace:label""",
    "Step.exec": "target:string! command:[string]! container timeout:period namespace:label expect:ExecExpect",
    "ExecExpect": "code:count stdout stderr",
    "Step.fault": """kill-pod link-down link-up flush-conntrack partition heal kill-node rate delay loss duplicate reorder
        corrupt clear value:any jitter:duration direction:both|out|in for:period namespace:label""",
    "Step.load": """from:string! to:string! rate:positive! for:period protocol:tcp|udp|http keepAlive:bool source:ip
        timeout:period namespace:label while:list expect:LoadExpect""",
    "LoadExpect": "lost:countOrMost outage:MostTime",
    "MostTime": "max:duration!",
    "Step.wait": """for:endpoints|ready|affinity|settled! of count:count timeout:period namespace:label""",
    "Step.matrix": "from to namespace:label expect:MatrixExpect",
    "MatrixExpect": "verdict:pass|fail|inconclusive outcome:delivered|rejected|dropped",
    "Step.apply": "manifests:[string]!",
    "Step.delete": "target manifests:[string] cascade:background|orphan namespace:label",
    "Step.label": "target:string! labels:{nullable}! namespace:label",
    "Step.verify": "repair:bool expect:VerifyExpect",
    "VerifyExpect": "drift:count",
}


@cache
def checks() -> dict[str, Check]:
    """The compiled tables."""
    return compile_tables(TABLES)
