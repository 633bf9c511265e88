"""Manifests that several tests and pictures need, as values."""

from typing import Any


def web(name: str, replicas: int, namespace: str = "default", **spec: Any) -> list[dict[str, Any]]:
    """A Deployment of nginx and a NodePort Service before it, as manifests; `spec` is laid over the Service's."""
    meta, labels = {"name": name, "namespace": namespace}, {"app": name}
    container = {"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    workload = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    service = {"type": "NodePort", "selector": labels, "ports": [{"port": 80}], **spec}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": workload},
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
    ]
