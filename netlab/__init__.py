"""netlab: a Kubernetes network on one Linux machine, made of network namespaces.

Importing this package is cheap; `up` and the other names are loaded on first use (PEP 562).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from netlab.client import Lab, up

__version__ = "0.1.0"
__all__ = ["Lab", "__version__", "up"]


def __getattr__(name: str) -> Any:
    if name in ("up", "Lab"):
        from netlab import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
