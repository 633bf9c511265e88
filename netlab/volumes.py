"""What a pod's containers see of volumes: which directories are bound where, and the files of ConfigMaps, Secrets and fields.

Decides the paths, relative to the lab's own tmpfs: `volumes/UID/VOLUME`, for as long as the pod is there. Refuses to know who
makes directories and mounts.
"""

from collections.abc import Iterator

from netlab import variables
from netlab.model import Cluster, Container, Pod, Volume
from netlab.ops import File

ROOT = "volumes"


def plan(cluster: Cluster) -> tuple[File, ...]:
    """The files in the volumes of every placed pod."""
    pods = (pod for pod in cluster.pods.values() if pod.spec.volumes and pod.addresses and pod.node in cluster.nodes)
    return tuple(file for pod in pods for volume in pod.spec.volumes for file in _files(cluster, pod, volume))


def directory(pod: Pod, volume: Volume) -> str:
    """Where the volume's files are: relative to the lab's tmpfs, or an absolute path of this machine."""
    return volume.path if volume.kind == "host" else f"{ROOT}/{pod.meta.uid}/{volume.name}"


def mounts(pod: Pod, container: Container) -> tuple[tuple[str, str, bool], ...]:
    """(directory or file, where the container sees it, read-only), in the manifest's order."""
    known = {volume.name: volume for volume in pod.spec.volumes}
    found = []
    for mount in container.mounts:
        volume = known.get(mount.volume)
        if volume is not None:
            source = directory(pod, volume) + (f"/{mount.sub_path}" if mount.sub_path else "")
            found.append((source, mount.path, mount.read_only or volume.kind == "objects"))
    return tuple(found)


def _files(cluster: Cluster, pod: Pod, volume: Volume) -> Iterator[File]:
    base = directory(pod, volume)
    for kind, name, items, _ in volume.sources:
        if kind == "field":
            for path, field in items:
                yield File(f"{base}/{path}", variables.field(cluster, pod, field) or "")
            continue
        data = variables.texts(cluster, pod, kind, name)
        for key, path in items or tuple((key, key) for key in data):
            if key in data:
                yield File(f"{base}/{path}", data[key])
