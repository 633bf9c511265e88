"""Row group `probe`: how long a probe takes, beside `curl` run in the same pod."""

import os
from collections.abc import Sequence

from netlab.cli.bench.change import PODS, SERVICE
from netlab.cli.bench.rows import Row, timed


def rows(runs: int) -> Sequence[Row]:
    import netlab

    service = {**SERVICE, "spec": {"selector": {"app": "bench"}, "ports": [{"port": 80, "targetPort": 8080}]}}
    with netlab.up(name=f"bench-{os.getpid()}-probe") as lab:
        lab.apply([service, *PODS])
        address = lab.get("services", "bench")[0]["spec"]["clusterIP"]

        def curl() -> None:
            lab.exec("pod/client", ["curl", "-s", "-o", "/dev/null", f"http://{address}/"], check=True)

        one = tuple(timed(lambda: lab.probe("pod/client", "svc/bench")) for _ in range(runs))
        many = tuple(timed(lambda: lab.probe("pod/client", "svc/bench", count=300)) for _ in range(runs))
        peer = tuple(timed(curl) for _ in range(runs))
    return [
        Row("probe, 1 flow", one, peers=("curl",)),
        Row("probe, 300 flows", many, peers=("curl",)),
        Row("curl", peer, "through the lab's exec"),
    ]
