"""The fields of Kubernetes objects, as tables for `check`: what is known, of which type, and what deserves a warning.

Decides what is an unknown field (v1.36, with what older versions had), and which known fields can matter for the
network although netlab does not act on them (`?`). What cannot matter (volumes, resources, security contexts) is
accepted as it is, unread. Refuses to know what anything means.
"""

from functools import cache

from netlab.manifest.check import Check, compile_tables

_PROTOCOL = "TCP|UDP|SCTP"

TABLES: dict[str, str] = {
    "ObjectMeta": """name namespace labels:labels annotations:annotations generateName uid resourceVersion generation:int
        creationTimestamp deletionTimestamp deletionGracePeriodSeconds:int ownerReferences:[OwnerReference]
        finalizers:[string] managedFields:list selfLink clusterName initializers:any""",
    "OwnerReference": "apiVersion! kind! name! uid controller:bool blockOwnerDeletion:bool",
    "ObjectReference": "kind namespace name uid apiVersion resourceVersion fieldPath",
    "LabelSelector": "matchLabels:labels matchExpressions:[LabelSelectorRequirement]",
    "LabelSelectorRequirement": "key! operator:In|NotIn|Exists|DoesNotExist! values:[string]",
    "Condition": "* type! status",
    # Pods
    "Pod": "apiVersion kind metadata:ObjectMeta! spec:PodSpec! status:PodStatus",
    "PodTemplateSpec": "metadata:ObjectMeta spec:PodSpec!",
    "PodSpec": """containers:[Container]! initContainers:[Container] ephemeralContainers:list? volumes:[Volume]
        restartPolicy:Always|OnFailure|Never terminationGracePeriodSeconds:count activeDeadlineSeconds:int?
        dnsPolicy:ClusterFirst|ClusterFirstWithHostNet|Default|None?ClusterFirst dnsConfig:object? nodeSelector:labels
        serviceAccountName
        serviceAccount automountServiceAccountToken:bool nodeName hostNetwork:bool hostPID:bool hostIPC:bool hostUsers:bool
        shareProcessNamespace:bool securityContext:object imagePullSecrets:list hostname:label subdomain:label hostnameOverride?
        setHostnameAsFQDN:bool?false affinity:Affinity schedulerName?default-scheduler tolerations:[Toleration] hostAliases:list?
        priorityClassName priority:int readinessGates:list? runtimeClassName enableServiceLinks:bool preemptionPolicy
        overhead:object topologySpreadConstraints:list? os:object schedulingGates:list? resourceClaims:list resources:object
        workloadRef:object         schedulingGroup:object""",
    "Affinity": "nodeAffinity:NodeAffinity podAffinity:object? podAntiAffinity:object?",
    "NodeAffinity": """requiredDuringSchedulingIgnoredDuringExecution:NodeSelector
        preferredDuringSchedulingIgnoredDuringExecution:list?""",
    "NodeSelector": "nodeSelectorTerms:[NodeSelectorTerm]!",
    "NodeSelectorTerm": "matchExpressions:[NodeRequirement] matchFields:[NodeRequirement]",
    "NodeRequirement": "key! operator:In|NotIn|Exists|DoesNotExist|Gt|Lt! values:[string]",
    "Container": """name:label! image! command:[string] args:[string] workingDir:workingDirectory ports:[ContainerPort]
        envFrom:[EnvFromSource] env:[EnvVar]
        resources:object resizePolicy:list restartPolicy restartPolicyRules:list volumeMounts:[VolumeMount]
        volumeDevices:list livenessProbe:Probe readinessProbe:Probe startupProbe:Probe lifecycle:Lifecycle terminationMessagePath
        terminationMessagePolicy imagePullPolicy:Always|IfNotPresent|Never securityContext:object stdin:bool
        stdinOnce:bool tty:bool""",
    "ContainerPort": f"containerPort:port! name:portName protocol:{_PROTOCOL} hostPort:count hostIP",
    "EnvVar": "name:variableName! value valueFrom:EnvVarSource",
    "EnvVarSource": """fieldRef:ObjectFieldSelector configMapKeyRef:KeySelector secretKeyRef:KeySelector resourceFieldRef:object?
        fileKeyRef:object?""",
    "ObjectFieldSelector": "apiVersion fieldPath!",
    "KeySelector": "name! key! optional:bool",
    "EnvFromSource": "prefix configMapRef:ObjectSelector secretRef:ObjectSelector",
    "ObjectSelector": "name! optional:bool",
    "Lifecycle": "preStop:LifecycleHandler postStart:object? stopSignal?SIGTERM",
    "LifecycleHandler": "exec:ExecAction httpGet:HTTPGetAction tcpSocket:object? sleep:SleepAction",
    "SleepAction": "seconds:count!",
    "VolumeMount": """name:label! mountPath:mountPath! subPath:relativePath readOnly:bool mountPropagation subPathExpr?
        recursiveReadOnly""",
    "Volume": """* name:label! emptyDir:any hostPath:HostPath configMap:ObjectVolume secret:ObjectVolume downwardAPI:FieldVolume
        projected:ProjectedVolume""",
    "HostPath": "path! type",
    "ObjectVolume": "name secretName items:[KeyToPath] defaultMode:int optional:bool",
    "KeyToPath": "key:dataKey! path:relativePath! mode:int",
    "FieldVolume": "items:[FieldToPath] defaultMode:int",
    "FieldToPath": "path:relativePath! fieldRef:ObjectFieldSelector resourceFieldRef:object mode:int",
    "ProjectedVolume": "sources:[ProjectedSource] defaultMode:int",
    "ProjectedSource": "* configMap:ObjectVolume secret:ObjectVolume downwardAPI:FieldVolume",
    "Probe": """exec:ExecAction httpGet:HTTPGetAction tcpSocket:TCPSocketAction grpc:object? initialDelaySeconds:count
        periodSeconds:positive timeoutSeconds:positive successThreshold:positive failureThreshold:positive
        terminationGracePeriodSeconds:positive""",
    "ExecAction": "command:[string]!",
    "HTTPGetAction": "path port:portOrName! host scheme:HTTP|HTTPS httpHeaders:[HTTPHeader]",
    "HTTPHeader": "name! value",
    "TCPSocketAction": "port:portOrName! host",
    "Toleration": "key operator:Exists|Equal|Lt|Gt value effect:NoSchedule|PreferNoSchedule|NoExecute tolerationSeconds:int",
    "PodStatus": """* phase:Pending|Running|Succeeded|Failed|Unknown podIP:ipOrEmpty podIPs:[PodIP] hostIP:ipOrEmpty
        conditions:[Condition]""",
    "PodIP": "ip:ip",
    # Nodes
    "Node": "apiVersion kind metadata:ObjectMeta! spec:NodeSpec status:NodeStatus",
    "NodeSpec": """podCIDR:network podCIDRs:[network] providerID unschedulable:bool taints:[Taint] configSource:any
        externalID""",
    "Taint": "key:labelKey! value effect:NoSchedule|PreferNoSchedule|NoExecute! timeAdded",
    "NodeStatus": "* addresses:[NodeAddress] conditions:[Condition]",
    "NodeAddress": "type! address!",
    # Workloads
    "ReplicationController": "apiVersion kind metadata:ObjectMeta! spec:ReplicationControllerSpec! status:object",
    "ReplicationControllerSpec": "replicas:count minReadySeconds:count selector:labels template:PodTemplateSpec!",
    "ReplicaSet": "apiVersion kind metadata:ObjectMeta! spec:ReplicaSetSpec! status:object",
    "ReplicaSetSpec": "replicas:count minReadySeconds:count selector:LabelSelector template:PodTemplateSpec!",
    "Deployment": "apiVersion kind metadata:ObjectMeta! spec:DeploymentSpec! status:object",
    "DeploymentSpec": """replicas:count selector:LabelSelector template:PodTemplateSpec! strategy:DeploymentStrategy
        minReadySeconds:count revisionHistoryLimit:int paused:bool progressDeadlineSeconds:int rollbackTo:object""",
    "DeploymentStrategy": "type:RollingUpdate|Recreate rollingUpdate:RollingUpdate",
    "RollingUpdate": "maxUnavailable:intOrPercent maxSurge:intOrPercent",
    "DaemonSet": "apiVersion kind metadata:ObjectMeta! spec:DaemonSetSpec! status:object",
    "DaemonSetSpec": """selector:LabelSelector template:PodTemplateSpec! updateStrategy:DaemonSetUpdateStrategy
        minReadySeconds:count revisionHistoryLimit:int templateGeneration:int""",
    "DaemonSetUpdateStrategy": "type:RollingUpdate|OnDelete rollingUpdate:RollingUpdate",
    "StatefulSet": "apiVersion kind metadata:ObjectMeta! spec:StatefulSetSpec! status:object",
    "StatefulSetSpec": """replicas:count selector:LabelSelector template:PodTemplateSpec! serviceName volumeClaimTemplates:list
        podManagementPolicy:OrderedReady|Parallel updateStrategy:StatefulSetUpdateStrategy revisionHistoryLimit:count
        minReadySeconds:count persistentVolumeClaimRetentionPolicy:object ordinals:StatefulSetOrdinals""",
    "StatefulSetUpdateStrategy": "type:RollingUpdate|OnDelete rollingUpdate:StatefulSetRollingUpdate",
    "StatefulSetRollingUpdate": "partition:count maxUnavailable:intOrPercent?1",
    "StatefulSetOrdinals": "start:count",
    "Job": "apiVersion kind metadata:ObjectMeta! spec:JobSpec! status:object",
    "JobSpec": """parallelism:count completions:count activeDeadlineSeconds:count podFailurePolicy:object? successPolicy:object?
        backoffLimit:count backoffLimitPerIndex:int? maxFailedIndexes:int? selector:LabelSelector manualSelector:bool
        template:PodTemplateSpec! ttlSecondsAfterFinished:count completionMode:NonIndexed|Indexed suspend:bool
        podReplacementPolicy:TerminatingOrFailed|Failed?TerminatingOrFailed managedBy""",
    # Services and their endpoints
    "Service": "apiVersion kind metadata:ObjectMeta! spec:ServiceSpec! status:ServiceStatus",
    "ServiceSpec": """ports:[ServicePort] selector:labels clusterIP:clusterIP clusterIPs:[clusterIP]
        type:|ClusterIP|NodePort|LoadBalancer|ExternalName externalIPs:[endpointIP] sessionAffinity:|None|ClientIP loadBalancerIP
        loadBalancerSourceRanges:[cidr] externalName externalTrafficPolicy:|Cluster|Local healthCheckNodePort:count
        publishNotReadyAddresses:bool sessionAffinityConfig:SessionAffinityConfig ipFamilies:[IPv4|IPv6]
        ipFamilyPolicy:SingleStack|PreferDualStack|RequireDualStack allocateLoadBalancerNodePorts:bool loadBalancerClass
        internalTrafficPolicy:Cluster|Local trafficDistribution:PreferClose|PreferSameZone|PreferSameNode topologyKeys:list?""",
    "ServicePort": f"name protocol:{_PROTOCOL} port:port! targetPort:targetPort nodePort:nodePort appProtocol",
    "SessionAffinityConfig": "clientIP:ClientIPConfig",
    "ClientIPConfig": "timeoutSeconds:int",
    "ServiceStatus": "* loadBalancer:LoadBalancerStatus",
    "LoadBalancerStatus": "ingress:[LoadBalancerIngress]",
    "LoadBalancerIngress": "ip:ipOrEmpty hostname ipMode:VIP|Proxy ports:list",
    "EndpointSlice": """apiVersion kind metadata:ObjectMeta! addressType:IPv4|IPv6|FQDN! endpoints:[Endpoint]
        ports:[EndpointPort]""",
    "Endpoint": """addresses:[string]! conditions:EndpointConditions hostname:labelOrEmpty nodeName targetRef:ObjectReference zone
        hints:EndpointHints deprecatedTopology:object""",
    "EndpointConditions": "ready:bool serving:bool terminating:bool",
    "EndpointHints": "forZones:[ForName] forNodes:[ForName]",
    "ForName": "name!",
    "EndpointPort": f"name protocol:{_PROTOCOL} port:port appProtocol",
    "Endpoints": "apiVersion kind metadata:ObjectMeta! subsets:[EndpointSubset]",
    "EndpointSubset": "addresses:[EndpointAddress] notReadyAddresses:[EndpointAddress] ports:[EndpointsPort]",
    "EndpointAddress": "ip:endpointIP! hostname:labelOrEmpty nodeName targetRef:ObjectReference",
    "EndpointsPort": f"name protocol:{_PROTOCOL} port:port! appProtocol",
    # HTTP routes
    "Ingress": "apiVersion kind metadata:ObjectMeta! spec:IngressSpec status:object",
    "IngressSpec": """ingressClassName defaultBackend:IngressBackend backend:IngressBackend rules:[IngressRule]
        tls:[IngressTLS]""",
    "IngressBackend": "service:IngressService resource:IngressResource serviceName servicePort:portOrName",
    "IngressService": "name! port:IngressPort!",
    "IngressPort": "name:portName number:port",
    "IngressResource": "apiGroup kind! name!",
    "IngressRule": "host http:IngressHTTP",
    "IngressHTTP": "paths:[IngressPath]!",
    "IngressPath": "path pathType:Exact|Prefix|ImplementationSpecific backend:IngressBackend!",
    "IngressTLS": "hosts:[string] secretName",
    "IngressClass": "apiVersion kind metadata:ObjectMeta! spec:IngressClassSpec",
    "IngressClassSpec": "controller parameters:object?",
    # Everything else: only its metadata is read
    "Other": "* apiVersion kind metadata:ObjectMeta!",
}


@cache
def checks() -> dict[str, Check]:
    """The compiled tables."""
    return compile_tables(TABLES)
