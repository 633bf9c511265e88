"""The Python API: `netlab.up()` and `Lab`. The command line and the pytest plugin are thin faces over it.

A Lab here is a name and a socket; every method is one request to the lab's own process. What is returned is plain data.
Over 400 lines: one class with a short method a verb, read as the list of what a lab can do.
"""

import contextlib
import json
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from netlab import __version__
from netlab.errors import ApiError, InputError, InputWarning, KernelError, LabGone, MachineError, MissingEvidence, NetlabError
from netlab.lab import directory as directories
from netlab.memory import no_collection

if TYPE_CHECKING:
    from netlab.lab.start import Starting
    from netlab.model import Cluster, Topology
    from netlab.plan import Plan

ANSWER_S = 3.0
"""How long a lab may take to answer what it can answer at once, before it counts as stuck."""
BY_EXIT_CODE: Mapping[int, type[NetlabError]] = {2: InputError, 3: MachineError, 4: MissingEvidence}


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The contract's probe result; `json()` gives exactly the document that it was made from."""

    sender: str
    to: str
    proxy: str
    sent: int
    outcomes: dict[str, int]
    backends: dict[str, int]
    sources: dict[str, int]
    distribution: dict[str, Any] | None
    expected: dict[str, Any]
    verdict: str
    why: list[str]
    document: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, document: dict[str, Any]) -> "ProbeResult":
        values: dict[str, Any] = {name: document.get(name) for name in cls.__slots__ if name not in ("sender", "document")}
        return cls(sender=document["from"], document=document, **values)

    @property
    def variant(self) -> str:
        """The proxy mode, with its layout where that is not kube-proxy's own: `nftables-maps`."""
        from netlab.model import variant_of

        return variant_of(self.document)

    def json(self) -> dict[str, Any]:
        return self.document


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What became of a load's requests; `json()` gives the whole document (docs/load.md). `lost` = `sent` - `answered`.

    outages: {at_ms, length_ms, lost} of each interval in which no request succeeded, by time; `outage_ms` is the longest.
    latency_ms: p50, p90, p99 and max of the answered ones, from the moment when the request was due. rate: asked and kept.
    """

    sender: str
    to: str
    sent: int
    answered: int
    lost: int
    refused: int
    timed_out: int
    reset: int
    wrong_status: int
    backends: dict[str, int]
    latency_ms: dict[str, float]
    outage_ms: float
    outages: list[dict[str, Any]]
    rate: dict[str, float]
    verdict: str
    why: list[str]
    document: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, document: dict[str, Any]) -> "LoadResult":
        values: dict[str, Any] = {name: document.get(name) for name in cls.__slots__ if name not in ("sender", "document")}
        return cls(sender=document["from"], document=document, **values)

    def json(self) -> dict[str, Any]:
        return self.document


@dataclass(frozen=True, slots=True)
class LabInfo:
    """One running lab as `netlab ls` shows it. `age_s`: seconds since it was started; `pid`: its holder's."""

    name: str
    pid: int
    proxy: str
    nodes: int
    pods: int
    age_s: float
    directory: str
    version: str
    layout: str = "chains"


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found: one sentence per difference between the plan and the kernel; how many were repaired, what is left."""

    drift: list[str]
    repaired: int = 0
    left: list[str] = field(default_factory=list)


class View:
    """One pod, node or host, as the kernel shows it. The lists hold what `ip -j` prints, read from the kernel at each call."""

    def __init__(self, lab: "Lab", target: str) -> None:
        self._lab, self.target = lab, target

    def links(self) -> list[dict[str, Any]]:
        return self._observe("links")

    def addresses(self) -> list[dict[str, Any]]:
        return self._observe("addresses")

    def routes(self) -> list[dict[str, Any]]:
        return self._observe("routes")

    def neighbours(self) -> list[dict[str, Any]]:
        return self._observe("neighbours")

    def conntrack(self) -> list[dict[str, Any]]:
        return self._observe("conntrack")

    def rules(self) -> str:
        """`iptables-save` or `nft list ruleset`, in the dialect of the lab's mode."""
        return str(self._lab.verb("observe", target=self.target, what="rules"))

    def exec(self, *command: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        return self._lab.exec(self.target, command, **options)

    def _observe(self, what: str) -> list[dict[str, Any]]:
        return list(self._lab.verb("observe", target=self.target, what=what))


class Connection:
    """A TCP connection that the lab holds open. `backend` took it, `answer` is its own name, `result` the judged probe.

    As a context manager it is closed at the end.
    """

    def __init__(self, lab: "Lab", opened: Mapping[str, Any]) -> None:
        self._lab, self._id = lab, int(opened["connection"])
        self.backend: str = opened["backend"]
        self.answer: str = opened["answer"]
        self.result = ProbeResult.of(opened["result"])
        self.problem = ""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(NetlabError):
            self.close()

    def use(self, timeout_s: float = 1.0) -> bool:
        """Ask the peer for its name again, on the same connection: whether the same one answered. Else `problem` says why not."""
        used = self._lab.verb("use-connection", connection=self._id, timeout_s=timeout_s)
        self.problem = used["problem"] or ("" if used["same"] else f"another one answered: {used['answer']}")
        return bool(used["same"])

    def close(self) -> None:
        self._lab.verb("close-connection", connection=self._id)


class Rollout:
    """The rollout of a Deployment, DaemonSet or StatefulSet, named KIND/NAME: `lab.rollout.status("deploy/web")`."""

    def __init__(self, lab: "Lab") -> None:
        self._lab = lab

    def restart(self, target: str, namespace: str = "default") -> None:
        self._do("restart", target, namespace)

    def undo(self, target: str, revision: int = 0, namespace: str = "default", *, to_revision: int = 0) -> str:
        """Back to a revision, 0 the one before: `rolled back`, or why there was nothing to do. Raises ApiError.

        `to_revision` is the same as `revision`, by kubectl's name.
        """
        return str(self._do("undo", target, namespace, revision=to_revision or revision)["message"])

    def pause(self, target: str, namespace: str = "default") -> None:
        self._do("pause", target, namespace)

    def resume(self, target: str, namespace: str = "default") -> None:
        self._do("resume", target, namespace)

    def history(self, target: str, namespace: str = "default") -> list[dict[str, Any]]:
        """Each revision that is kept, oldest first: revision, changeCause, template."""
        return list(self._do("history", target, namespace)["history"])

    def messages(self, target: str, timeout_s: float | None = None, namespace: str = "default") -> Iterator[dict[str, Any]]:
        """What `rollout status` says, each time it is something new: {message, done, failed}; the last one is done.

        Raises TimeoutError when it is not done by then.
        """
        kind, name = _split(target)
        end = None if timeout_s is None else time.monotonic() + timeout_s
        seen = None
        while True:
            left = None if end is None else max(end - time.monotonic(), 0.001)
            body = {"kind": kind, "name": name, "namespace": namespace, "seen": seen}
            try:
                told = self._lab.request("POST", "/netlab/v1/rollout-status", body, timeout_s=left)
            except LabGone:
                if end is not None and time.monotonic() >= end:
                    raise TimeoutError(f"timed out waiting for the condition: {seen}") from None
                raise
            yield told
            if told["done"]:
                return
            seen = told["message"]

    def status(self, target: str, timeout_s: float | None = 60.0, namespace: str = "default") -> str:
        """Wait until it is done; kubectl's last line. Raises TimeoutError, ApiError when its progress deadline has passed."""
        told = [*self.messages(target, timeout_s, namespace)][-1]
        if told["failed"]:
            raise ApiError(504, "Timeout", told["message"].removeprefix("error: "))
        return str(told["message"])

    def _do(self, action: str, target: str, namespace: str, **more: Any) -> Any:
        kind, name = _split(target)
        return self._lab.verb("rollout", action=action, kind=kind, name=name, namespace=namespace, **more)


def _split(target: str) -> tuple[str, str]:
    kind, slash, name = target.partition("/")
    if not slash or not name:
        raise InputError(f"{target!r}: expected KIND/NAME, such as deploy/web")
    return kind, name


class Load:
    """A load under way. As a context manager it is stopped at the end of the block; `result()` says what it showed."""

    def __init__(self, lab: "Lab", number: int) -> None:
        self._lab, self._number = lab, number
        self._result: LoadResult | None = None

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.result()
        else:
            with contextlib.suppress(NetlabError):
                self.result()

    def result(self, stop: bool = True) -> LoadResult:
        """Stop sending, wait for what is under way, and say what was seen. With `stop=False` the load's own time runs out first.

        Raises KernelError when the generator died: then nothing is known.
        """
        if self._result is None:
            self._result = LoadResult.of(self._lab.verb("end-load", load=self._number, stop=stop))
        return self._result


class Lab:
    """A running lab. As a context manager it is taken down at the end."""

    def __init__(self, directory: Path, keep: socket.socket | None = None) -> None:
        self.directory = directory
        self.name = directory.name
        self._keep = keep
        self.started: dict[str, Any] = {}
        """What the lab said of itself when it was ready; empty for a lab that was attached to."""
        info = directories.info(directory)
        self.pid = int(info["pid"])
        self._edition = str(info.get("edition", ""))
        if info["version"] != __version__:
            raise LabGone(
                f"lab {self.name} was started by netlab {info['version']}, this is {__version__}: "
                f"use that version, or `netlab down {self.name}`"
            )

    @classmethod
    def attach(cls, name: str | None = None) -> "Lab":
        """The running lab of this name (or NETLAB_LAB, or the only one). Raises LabGone, InputError."""
        return cls(directories.find(directories.base(os.environ), name or os.environ.get("NETLAB_LAB")))

    def __enter__(self) -> "Lab":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.down()

    def __repr__(self) -> str:
        return f"<netlab.Lab {self.name}>"

    # ------------------------------------------------------------ requests

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout_s: float | None = None
    ) -> Any:
        """One request to the lab's API; the parsed JSON. Raises ApiError and its kin, LabGone (also after `timeout_s`)."""
        status, data = self._raw(method, path, body, headers, timeout_s)
        with no_collection():
            document = json.loads(data) if data else None
        if status >= 400:
            error = _error(status, document)
            raise (self._outdated(str(error)) if _is_bug(status, document) else None) or error
        return document

    def _outdated(self, said: str) -> LabGone | None:
        """What to say instead of a bug's own words where the lab began with other files of netlab than there are now, else None.

        Its agents import what they need when they need it, so that an update in place mixes two editions.
        """
        from netlab.lab.edition import edition

        if self._edition == edition():
            return None
        return LabGone(
            f"lab {self.name} was started by another copy of netlab, or netlab's files have changed since: "
            f"`netlab down {self.name}` and start it again (it failed with {said.strip().splitlines()[-1]})"
        )

    def verb(self, name: str, /, **body: Any) -> Any:
        """One of netlab's own verbs."""
        return self.request("POST", f"/netlab/v1/{name}", body)

    def _raw(
        self, method: str, path: str, body: Any, headers: Mapping[str, str] | None, timeout_s: float | None = None
    ) -> tuple[int, bytes]:
        from netlab import wire  # http.client costs 15 ms, which `up` need not pay

        data = None if body is None else json.dumps(body)
        try:
            sent = {"Content-Type": "application/json", **(headers or {})}
            return wire.exchange(self.directory, method, path, data, sent, timeout_s)
        except OSError as error:
            raise LabGone(f"lab {self.name} does not answer ({error}); is it gone? `netlab ls` shows what runs") from None

    # ------------------------------------------------------------ objects

    def apply(self, objects: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
        """Create or change Kubernetes objects (JSON); what happened to each: {kind, namespace, name, action}.

        What netlab does not act on is an InputWarning, one a line. Raises InputError, ApiError.
        """
        from netlab import manifest

        if isinstance(objects, Mapping | str):
            raise InputError("apply takes a list of objects; files are for apply_files")
        items = list(objects)
        read = manifest.object_from_json({"apiVersion": "v1", "kind": "List", "items": items}, "apply")
        return self._apply(items, read.warnings)

    def apply_files(self, *paths: str | Path) -> list[dict[str, str]]:
        """The same for manifest files, with file:line:column of every mistake and file:line of every warning."""
        from netlab import manifest

        sources = manifest.read_paths([str(path) for path in paths], _no_stdin)
        return self._apply(manifest.documents(sources), manifest.read_objects(sources).warnings)

    def _apply(self, objects: Sequence[Mapping[str, Any]], told: Sequence[str]) -> list[dict[str, str]]:
        for line in told:
            warnings.warn(line, InputWarning, stacklevel=3)
        done: list[dict[str, str]] = self.verb("apply", objects=list(objects))
        for one in done:
            for line in one.get("warning", "").splitlines():  # what the lab knows of an Ingress
                warnings.warn(line, InputWarning, stacklevel=3)
        return done

    def get(
        self, kind: str, name: str | None = None, namespace: str | None = "default", selector: str = ""
    ) -> list[dict[str, Any]]:
        """Objects of a kind as Kubernetes JSON; `namespace` None means all. Raises ApiError (404) for a name that is not
        there.
        """
        path = _path(kind, name, namespace)
        if name is not None:
            return [self.request("GET", path)]
        query = "?" + urlencode({"labelSelector": selector}) if selector else ""
        return list(self.request("GET", path + query)["items"])

    def delete(
        self,
        kind: str,
        name: str,
        namespace: str = "default",
        cascade: str = "background",
        grace_s: float | None = None,
        wait: bool = True,
    ) -> dict[str, Any]:
        """Delete an object; the object as it was. A pod ends in its own time, `grace_s` at most (None: as its spec says; 0: at
        once); with `wait` this returns when it is gone.
        """
        policy = "Orphan" if cascade in ("orphan", "false") else "Background"
        grace = "" if grace_s is None else f"&gracePeriodSeconds={grace_s:g}"
        found: dict[str, Any] = self.request("DELETE", _path(kind, name, namespace) + f"?propagationPolicy={policy}{grace}")
        if wait:
            self.wait_gone(found)
        return found

    def wait_gone(self, found: Mapping[str, Any]) -> None:
        """Return when this object, deleted before, is gone: pods end in their own time, everything else has gone at once."""
        if found["kind"] == "Pod":
            meta = found["metadata"]
            self.verb("wait-gone", namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])

    def scale(self, kind: str, name: str, replicas: int, namespace: str = "default") -> None:
        self.verb("scale", kind=kind, name=name, replicas=replicas, namespace=namespace)

    @property
    def rollout(self) -> "Rollout":
        """kubectl's `rollout` verbs."""
        return Rollout(self)

    def cordon(self, node: str, unschedulable: bool = True) -> bool:
        """Keep new pods off a node, or let them on it again; whether that changed anything."""
        return bool(self.verb("cordon", node=node, unschedulable=unschedulable)["changed"])

    def taint(
        self,
        node: str,
        add: Iterable[Mapping[str, str]] = (),
        remove: Iterable[Mapping[str, str]] = (),
        overwrite: bool = False,
    ) -> None:
        """Add taints, {key, value, effect} each, to a node, and remove others, {key} or {key, effect} each. Raises ApiError."""
        self.verb("taint", node=node, add=[*map(dict, add)], remove=[*map(dict, remove)], overwrite=overwrite)

    def endpoints(self, service: str, namespace: str = "default") -> set[str]:
        """The names of a Service's ready endpoints, as `backends` of a probe names them: compares with `backends.keys()`."""
        return set(self.verb("endpoints", service=service, namespace=namespace))

    # ------------------------------------------------------------ packets

    def probe(
        self,
        sender: str,
        to: str,
        count: int = 1,
        protocol: str | None = None,
        source: str | None = None,
        source_port: int | None = None,
        timeout_s: float = 1.0,
        expect: Mapping[str, Any] | None = None,
        namespace: str = "default",
    ) -> ProbeResult:
        """Send `count` flows, watch where they arrive, judge. Raises InputError for targets that do not exist.

        expect: as a scenario's probe has it: outcome, backends, sources, masqueraded, affinity, route. What of it does not hold
        makes the verdict `fail` and stands in `why`, whatever the oracle says.
        """
        from netlab import manifest

        wanted = manifest.probe_expectation({key: value for key, value in expect.items() if value is not None}) if expect else {}
        cluster = self.cluster() if "masqueraded" in wanted else None  # who has which address before it is sent
        body = {"from": sender, "to": to, "count": count, "protocol": protocol, "source": source, "source_port": source_port,
                "timeout_s": timeout_s, "namespace": namespace}  # fmt: skip
        result = ProbeResult.of(self.request("POST", "/netlab/v1/probe", body))
        return self._demanded(result, wanted, source, cluster) if wanted else result

    def _demanded(
        self, result: ProbeResult, wanted: Mapping[str, Any], source: str | None, cluster: "Cluster | None"
    ) -> ProbeResult:
        """The result with what the caller himself demands judged, too."""
        from netlab import demands

        own = demands.own_addresses(cluster, result.sender, source) if cluster is not None else ()
        unmet = demands.unmet(result, wanted, own)
        return ProbeResult.of({**result.json(), "verdict": "fail", "why": [*unmet, *result.why]}) if unmet else result

    def connect(
        self, sender: str, to: str, source: str | None = None, timeout_s: float = 1.0, namespace: str = "default"
    ) -> Connection:
        """Open a TCP connection and hold it, to see whether it outlives changes. Raises ApiError when it is not established."""
        return Connection(
            self, self.verb("connect", **{"from": sender}, to=to, source=source, timeout_s=timeout_s, namespace=namespace)
        )

    def load(
        self,
        sender: str,
        to: str,
        rate: float,
        for_s: float | None = None,
        protocol: str | None = None,
        keep_alive: bool = False,
        source: str | None = None,
        timeout_s: float = 1.0,
        expect: Mapping[str, Any] | None = None,
        namespace: str = "default",
    ) -> Load:
        """Send `rate` requests a second, whatever becomes of them, until the result is asked for or `for_s` seconds are over.

        protocol: http (a GET on a connection of its own; idle ones are used again with `keep_alive`), tcp or udp; by default what
        the destination is. expect: {"lost": n, "outage_ms": x} is tolerated; without it the oracle's word counts.
        """
        body = {"from": sender, "to": to, "rate": rate, "for_s": for_s, "protocol": protocol, "keep_alive": keep_alive,
                "source": source, "timeout_s": timeout_s, "expect": dict(expect) if expect else None,
                "namespace": namespace}  # fmt: skip
        return Load(self, self.verb("load", **body)["load"])

    def matrix(self, senders: Sequence[str] | None = None, to: Sequence[str] | None = None, **options: Any) -> list[ProbeResult]:
        """Every pair of senders and destinations (default: all pods, nodes and hosts, and all pods and Services)."""
        found = self.verb("matrix", **{"from": senders, "to": to, **options})
        with no_collection():
            return [ProbeResult.of(result) for result in found]

    def capture(
        self, file: str | Path, *targets: str, expression: str = "", namespace: str = "default"
    ) -> contextlib.AbstractContextManager[Path]:
        """A block during which what passes in the targets (all pods, nodes and hosts without one) is recorded into a pcapng file.

        expression: a filter as tcpdump takes it. The file is whole when the block is over. Raises InputError, MachineError.
        """
        from netlab.recorder import recording

        chosen = ["-f", expression] if expression else []
        return recording(self.name, Path(file), [*chosen, "-n", namespace, "--", *targets])

    def explain(
        self,
        sender: str,
        to: str,
        protocol: str | None = None,
        source: str | None = None,
        source_port: int | None = None,
        timeout_s: float | None = None,
        live_s: float | None = None,
        namespace: str = "default",
        check: bool = False,
    ) -> dict[str, Any]:
        """Send one packet and tell its story: the document of docs/explain.md. Raises InputError for unknown targets.

        `live_s`: send none, wait so long for a TCP connection, a UDP datagram or a ping of a program. Raises MissingEvidence when
        none comes. `check`: nothing is sent; `from`, `to` and `what`, as they are understood.
        """
        body = {"from": sender, "to": to, "protocol": protocol, "source": source, "source_port": source_port,
                "timeout_s": timeout_s, "live_s": live_s, "namespace": namespace, "check": check}  # fmt: skip
        return dict(self.verb("explain", **body))

    def verify(self, repair: bool = False) -> Report:
        """Read the kernel back and compare it with the plan."""
        return Report(**self.verb("verify", repair=repair))

    def fault(self, kind: str, target: str | None = None, **arguments: Any) -> dict[str, Any]:
        """link-down, link-up, kill-pod, kill-node, partition, heal (without a target: every node), flush-conntrack; and of links
        rate, delay, loss, duplicate, reorder, corrupt: with value="10ms" or the like, jitter=, direction="out" or "in"; clear
        ends these.
        """
        if kind == "flush-conntrack":
            return dict(self.verb("flush-conntrack", target=target, **arguments))
        return dict(self.verb("fault", kind=kind, target=target, **arguments))

    # ------------------------------------------------------------ programs

    def exec(
        self,
        target: str,
        command: Sequence[str],
        container: str | None = None,
        check: bool = False,
        timeout_s: float | None = None,
        namespace: str = "default",
        stdin: str = "",
    ) -> "subprocess.CompletedProcess[str]":
        """Run a program of this machine inside a pod, node or host, and take in what it prints.

        Raises CalledProcessError with `check`, TimeoutExpired when it was killed after `timeout_s`.
        """
        if isinstance(command, str) or not command:
            raise InputError(f"command {command!r}: a program and its arguments are wanted, as in ['ip', 'route']")
        answer = self.verb(
            "exec",
            target=target,
            command=list(command),
            namespace=namespace,
            timeout_s=timeout_s,
            stdin=stdin,
            container=container,
        )
        if answer["timed_out"]:
            raise subprocess.TimeoutExpired(list(command), timeout_s or 0.0, answer["stdout"], answer["stderr"])
        done = subprocess.CompletedProcess(list(command), answer["returncode"], answer["stdout"], answer["stderr"])
        if check:
            done.check_returncode()
        return done

    def exec_replace(self, target: str, command: Sequence[str], namespace: str = "default", container: str | None = None) -> int:
        """Run a program in the target with this process' own terminal; its exit code. For the command line: joins namespaces."""
        from netlab import joining

        return joining.run(self, target, command, namespace, container)

    def logs(self, pod: str, namespace: str = "default", container: str | None = None, previous: bool = False) -> str:
        """What the container's program printed; with `previous` what its run before the last restart did (ApiError without)."""
        pod = pod if "/" in pod else f"pod/{pod}"
        return str(self.verb("logs", pod=pod, namespace=namespace, container=container, previous=previous)["text"])

    # ------------------------------------------------------------ the rest

    def node(self, name: str) -> View:
        return View(self, f"node/{name}")

    def pod(self, name: str) -> View:
        return View(self, f"pod/{name}")

    def host(self, name: str) -> View:
        return View(self, f"host/{name}")

    def router(self) -> View:
        return View(self, "router/router")

    def info(self) -> dict[str, Any]:
        return dict(self.request("GET", "/netlab/v1/info", timeout_s=ANSWER_S))

    def cluster(self) -> "Cluster":
        """The lab's whole state, as the value that its process works on."""
        return self._state()[0]

    def twin(self, proxy: str, name: str | None = None) -> "Lab":
        """A new lab with the same nodes, pods and objects as this one has now, in another proxy mode. Ends with this process.

        `nftables` is kube-proxy's own layout, whatever this lab has; `nftables-maps` is the other.
        Raises InputError, MachineError (a mode that this kernel cannot run).
        """
        from netlab.lab import start
        from netlab.lab.inputs import overridden
        from netlab.model import exact
        from netlab.proxy import variants

        cluster = self.cluster()
        topology = overridden(cluster.topology, exact(proxy, variants()), None)
        name = name or f"{self.name}-{proxy}-{os.getpid()}"
        return launch(start.spawn_holder(), name, topology, (), cluster=cluster.with_(topology=topology))

    def plan(self) -> "Plan":
        """What the lab has installed."""
        return self._state()[1]

    def _state(self) -> "tuple[Cluster, Plan]":
        status, data = self._raw("GET", "/netlab/v1/state", None, None)
        if status != 200:
            raise _error(status, json.loads(data))
        try:  # it is from our own lab, over a socket that only this user can open
            state: tuple[Cluster, Plan] = pickle.loads(data)
        except (AttributeError, ImportError, TypeError) as error:  # a class that went, moved, or has other fields
            raise self._outdated(repr(error)) or error from error
        return state

    def release(self) -> None:
        """Let the lab outlive this process."""
        if self._keep is not None:
            from netlab.lab.spec import RELEASE

            try:
                self._keep.sendall(RELEASE)
            except OSError:
                raise LabGone(f"lab {self.name} died right after its start") from None
            finally:
                self._keep.close()
                self._keep = None

    def down(self, timeout_s: float = 10.0) -> None:
        """End the lab; returns when its process and its socket are gone. A lab that has gone already is no error."""
        end(self.directory, self._keep, timeout_s)


def end(directory: Path, keep: socket.socket | None = None, timeout_s: float = 10.0) -> None:
    """End the lab that has this directory, whatever version it is of. `keep`: the socket that holds it up.

    Its process is known by the API's socket, never by a number alone, which might be another process' by now or in another pid
    namespace. Where the kernel does not show us the process (we are in a container, or in a pod), the lab's lock tells its end.
    Raises: KernelError when it does not end.
    """
    from netlab import wire

    pid = 0
    with contextlib.suppress(OSError), wire.connected(directory, ANSWER_S) as sock:
        pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    holder = -1
    if pid:
        with contextlib.suppress(ProcessLookupError):
            holder = os.pidfd_open(pid)
    try:
        with contextlib.suppress(OSError):  # it does not answer any more
            wire.exchange(directory, "POST", "/netlab/v1/down", "{}", {"Content-Type": "application/json"}, ANSWER_S)
        if keep is not None:
            keep.close()
        if holder >= 0 and not select.select([holder], [], [], ANSWER_S)[0]:  # stuck: the kernel frees everything all the same
            signal.pidfd_send_signal(holder, signal.SIGKILL)
        if not directories.wait_gone(directory, timeout_s):
            raise KernelError(f"lab {directory.name} (pid {pid or 'unknown'}) did not end within {timeout_s:g} s")
        if holder >= 0 and not select.select([holder], [], [], timeout_s)[0]:
            raise KernelError(f"lab {directory.name} (pid {pid}) did not end within {timeout_s:g} s; `kill -9 {pid}` ends it")
    finally:
        if holder >= 0:
            os.close(holder)
    directories.sweep(directory.parent)


def _path(kind: str, name: str | None, namespace: str | None) -> str:
    from netlab.manifest import kinds

    try:
        info = kinds.find(kind)
    except InputError as unknown:  # perhaps a custom resource, whose kind only the lab can know
        if not kind.isalnum():
            raise unknown from None
        info = kinds.custom(kind, "netlab.example/v1", True)
    root = "/api/v1" if "/" not in info.api_version else f"/apis/{info.api_version}"
    space = f"/namespaces/{quote(namespace, safe='')}" if info.namespaced and namespace is not None else ""
    return f"{root}{space}/{info.plural}" + (f"/{quote(name, safe='')}" if name is not None else "")


def _error(status: int, document: Any) -> NetlabError:
    message = str(document.get("message", document)) if isinstance(document, dict) else str(document)
    exit_code = document.get("details", {}).get("exitCode", 1) if isinstance(document, dict) else 1
    if status in (422, 504) or (status == 500 and exit_code in BY_EXIT_CODE):
        return BY_EXIT_CODE.get(exit_code, InputError)(message)
    return ApiError(status, str(document.get("reason", "")) if isinstance(document, dict) else "", message)


def _is_bug(status: int, document: Any) -> bool:
    """Whether the lab answered with an exception that nobody meant: the API's own, or an agent's with its traceback."""
    details = document.get("details", {}) if isinstance(document, dict) else {}
    return status == 500 and (details.get("exitCode") not in BY_EXIT_CODE or "Traceback (most recent call last)" in str(document))


def _no_stdin() -> bytes:
    raise InputError("'-' (standard input) is for the command line")


def labs() -> list[LabInfo]:
    """Every running lab of this user, by name; directories of dead ones are swept."""
    found = []
    for path in directories.running(directories.base(os.environ)):
        with contextlib.suppress(LabGone):
            info = directories.info(path)
            with contextlib.suppress(NetlabError):
                info |= Lab(path).info()
            age_s = max(0.0, time.time() - info["started"])
            found.append(
                LabInfo(
                    path.name,
                    info["pid"],
                    info["proxy"],
                    info["nodes"],
                    info["pods"],
                    age_s,
                    str(path),
                    info["version"],
                    info.get("layout", "chains"),
                )
            )
    return found


def up(
    topology: "str | Path | Topology | None" = None,
    manifests: str | Path | Sequence[str | Path] = (),
    *,
    name: str | None = None,
    proxy: str | None = None,
    fabric: str | None = None,
    named: bool = False,
) -> Lab:
    """A new lab, up and answering; it ends with the `with` block, with `down()`, or with this process.

    Raises InputError (every mistake with file:line:column), MachineError (what is missing here and how to get it). What it
    does not act on is an InputWarning, one a line.
    """
    from netlab.lab import start
    from netlab.lab.inputs import read_inputs

    paths = [manifests] if isinstance(manifests, str | Path) else manifests
    topology_value, objects, told = read_inputs(topology, [str(path) for path in paths], proxy=proxy, fabric=fabric)
    for line in told:
        warnings.warn(line, InputWarning, stacklevel=2)
    if name is None:
        name = f"{topology_value.name[:40]}-{os.getpid()}-{time.monotonic_ns() % 1_000_000:06d}"
    directories.check_name(name)  # before a process is started for it
    return launch(start.spawn_holder(), name, topology_value, objects, named=named)


def launch(
    starting: "Starting",
    name: str,
    topology: "Topology",
    objects: Sequence[Any],
    *,
    named: bool = False,
    cluster: "Cluster | None" = None,
) -> Lab:
    """Give a waiting holder its lab, which ends with this process unless it is released. On any error nothing is left.

    `cluster`: what the lab begins with, instead of objects.
    """
    from netlab.lab.spec import LabSpec

    try:
        if named and os.geteuid() != 0:
            raise MachineError("--named needs root: /run/netns belongs to it; `netlab exec` and `netlab shell` work without")
        directory, lock = directories.claim(directories.base(os.environ), name)
    except BaseException:
        starting.cancel()
        raise
    try:
        spec = LabSpec(name, str(directory), __version__, topology, tuple(objects), cluster)
        ready = starting.go(lock, spec)
    except BaseException:
        starting.cancel()
        raise
    finally:
        os.close(lock)
    lab = Lab(directory, starting.sock)
    lab.started = ready
    if named:
        from netlab.lab.named import publish

        publish(lab)
    return lab
