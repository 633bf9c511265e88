"""Time stamps and UIDs as Kubernetes writes them. Refuses to know the time: seconds come in as arguments."""

from datetime import UTC, datetime
from uuid import UUID, uuid5

_SPACE = UUID("5e7f1a52-6c1b-5c0e-9d0f-6e65746c6162")


def timestamp(seconds: float) -> str:
    """Unix time as 2026-01-02T03:04:05Z."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def uid(kind: str, namespace: str, name: str) -> str:
    """A UID for an object that was given none: the same for the same object, so that plans and outputs can be compared."""
    return str(uuid5(_SPACE, f"{kind}/{namespace}/{name}"))
