"""A change under load: endpoints come and go, and no connection that is made meanwhile is lost by the rules.

A pod that goes cuts the connection that it was about to answer, as a program does that ends at SIGTERM: that is counted apart,
and it is one connection at a time here.
"""

import json
import threading
from pathlib import Path

import pytest

import netlab
from netlab.client import Lab

KUBIA = "manifests/kubia.yaml"
CLIENT = """
import json, socket, sys, time
host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end, good, bad = time.monotonic() + seconds, 0, []
while time.monotonic() < end:
    try:
        with socket.create_connection((host, port), timeout=30) as sock:
            sock.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
            data = b""
            while chunk := sock.recv(4096):
                data += chunk
        if b"You've hit" in data:
            good += 1
        else:
            bad.append(repr(data))
    except OSError as error:
        bad.append(repr(error))
print(json.dumps({"good": good, "bad": bad}))
"""


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_no_connection_fails_while_endpoints_change(mode: str, tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    with netlab.up(manifests=[KUBIA], proxy=mode) as lab:
        address = lab.get("services", "kubia")[0]["spec"]["clusterIP"]
        found: dict[str, object] = {}
        load = threading.Thread(target=lambda: found.update(answer=run(lab, script, address)))
        load.start()
        for replicas in (5, 3, 4, 2, 6, 3):
            lab.scale("rc", "kubia", replicas)
        load.join()
        answer = found["answer"]
        assert isinstance(answer, dict)
        bad = answer["bad"]
        assert isinstance(bad, list)
        cut = [one for one in bad if one == "b''" or "ConnectionReset" in one]
        assert [one for one in bad if one not in cut] == []
        assert len(cut) <= 2
        assert answer["good"] > 50


def run(lab: Lab, script: Path, address: str) -> dict[str, object]:
    done = lab.exec("pod/client", ["python3", str(script), address, "80", "3"], check=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer
