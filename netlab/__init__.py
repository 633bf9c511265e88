"""netlab: a Kubernetes network on one Linux machine, made of network namespaces.

Importing this package is cheap; `up` and the other names are loaded on first use (PEP 562).
"""

TYPE_CHECKING = False  # not typing's: its import takes 10 ms, in which Ctrl-C would meet nothing that catches it
if TYPE_CHECKING:
    from typing import Any

    from netlab.client import Lab, up

__version__ = "0.1.0"
__all__ = ["Lab", "__version__", "up"]


def __getattr__(name: str) -> "Any":
    if name in ("up", "Lab"):
        from netlab import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
