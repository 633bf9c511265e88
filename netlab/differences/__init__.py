"""Where the proxy modes differ, and must: kube-proxy's modes do not treat every packet alike.

`known(cluster, flow)` (known.py) says which differences concern a flow; `compare` (comparing.py) puts the probe results of
several modes side by side and finds those that no known difference explains. Both are pure.
"""

from netlab.differences.comparing import Comparison, Pair, compare
from netlab.differences.known import KNOWN, Difference, known

__all__ = ["KNOWN", "Comparison", "Difference", "Pair", "compare", "known"]
