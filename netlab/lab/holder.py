"""The holder: one process that owns one lab. It holds the namespaces, reconciles, and serves the API; it does nothing else.

A lab is a Cluster (a value) and the Plan made from it. `change` takes a new Cluster, builds its Plan, and gives the
difference to the kernel: first what is new (namespaces, links, listeners), then the rules, then what is gone, so that no
rule ever points at nothing. What is installed is remembered, never listed. When an agent dies, the new one is given what the
plan says. Over 400 lines: the start, and the one order in which a difference reaches the kernel, are read together.
"""

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from netlab import controllers, discovery, dns, ops, plan, variables
from netlab.errors import KernelError, MachineError, NetlabError
from netlab.images import runs_program
from netlab.kernel import agent, qdisc, rule_texts, tools
from netlab.kernel import namespaces as ns
from netlab.kernel.agent import AgentGone
from netlab.kernel.apply import Kernel
from netlab.kernel.context import Place
from netlab.kernel.refusals import refusal
from netlab.lab import daemons as programs
from netlab.lab import directory as directories
from netlab.lab import ingresses, routing_http
from netlab.lab.agents import Agents
from netlab.lab.balancing import Balancing
from netlab.lab.connections import Serving, relayed_udp, serving_udp
from netlab.lab.edition import edition
from netlab.lab.ending import Ending, leaving
from netlab.lab.ingresses import Ingresses
from netlab.lab.journal import Journal
from netlab.lab.letting_go import LettingGo
from netlab.lab.loop import Loop
from netlab.lab.processes import Processes
from netlab.lab.ranges import SourcePorts
from netlab.lab.recording import Recorder
from netlab.lab.relays import Relays
from netlab.lab.sandboxes import Sandboxes
from netlab.lab.speaking import Speaking
from netlab.lab.spec import RELEASE, LabSpec
from netlab.lab.telling import GivingAgain, Names
from netlab.memory import collect_less
from netlab.model import Cluster, Key, Pod, Ref
from netlab.targets import netns_of

if TYPE_CHECKING:
    from netlab.lab.loading import Loading

RETRY_S = 1.0


def hold(start: socket.socket, pid: int) -> NoReturn:
    """Wait for the specification, build the lab, serve it until it is told to end. Runs as init of the lab's pid namespace.

    `pid` is this process' number outside it.
    """
    from netlab.lab.api import Api  # imported while the starter still reads manifests

    data, locks, _, _ = socket.recv_fds(start, 1, 1)
    if not data or not locks:
        os._exit(0)  # the starter changed its mind
    try:
        spec: LabSpec = agent.receive(start)
    except EOFError:
        os._exit(0)
    directory = Path(spec.directory)
    _log_to(directory / "log")
    try:
        gc.disable()
        lab = Lab(Loop(), spec)
        lab.build()
        collect_less()
        Api(lab, _listener(directory))
        (directory / "info").write_text(json.dumps({**lab.info(), "pid": pid, "edition": edition()}))
        lab.when_settled(lambda problem: _ready(lab, start, problem))
    except Exception as error:  # whatever it is, the starter must hear of it: the lab's log goes with the lab
        if not isinstance(error, NetlabError):
            told = refusal(error, str(directory))
            error = told or KernelError(f"a bug in netlab: {error!r}\n{traceback.format_exc()}")
        agent.send(start, ("error", error))
        _remove(directory)
        os._exit(1)
    for number in (signal.SIGTERM, signal.SIGINT):
        lab.loop.on_signal(number, lab.loop.stop)
    lab.loop.run()
    _remove(directory)
    os._exit(0)


def _ready(lab: "Lab", start: socket.socket, problem: NetlabError | None) -> None:
    """Tell the starter. The lab ends when the starter does (its end of the socket closes), unless it says `RELEASE` before."""
    try:
        if problem is not None:
            agent.send(start, ("error", problem))
            lab.loop.stop()
            return
        agent.send(start, ("ready", lab.info()))
    except OSError:
        lab.loop.stop()
        return
    lab.loop.watch(start, lambda: _on_tether(lab, start))


def _on_tether(lab: "Lab", start: socket.socket) -> None:
    if start.recv(1) == RELEASE:
        lab.loop.forget(start)
        start.close()
    else:
        lab.loop.stop()


def _log_to(path: Path) -> None:
    """From now on print to the lab's log; what was printed so far is in memory and moves there."""
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    with contextlib.suppress(OSError):
        os.lseek(1, 0, os.SEEK_SET)
        os.write(log, os.read(1, 1 << 20))
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _listener(directory: Path) -> socket.socket:
    """The API's socket, mode 0600. The path goes through a descriptor: a Unix socket's path holds only 107 bytes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    mask = os.umask(0o177)
    try:
        listener.bind(f"/proc/self/fd/{fd}/api")
    finally:
        os.umask(mask)
        os.close(fd)
    listener.listen(128)
    return listener


def _remove(directory: Path) -> None:
    with contextlib.suppress(OSError):
        ns.umount(str(directory / "fs"))
    directories.remove(directory)


class Lab:
    """The state of one lab and the ways to change it. Every method returns with the kernel in step, or raises."""

    def __init__(self, loop: Loop, spec: LabSpec) -> None:
        self.loop = loop
        self.spec = spec
        self.files = Path(spec.directory) / "fs"
        self.files.mkdir(exist_ok=True)
        ns.mount("netlab", str(self.files), "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "mode=755")
        begun_s = spec.cluster.clock if spec.cluster is not None else 0.0  # a twin goes on with the clock
        self.started = time.time() - begun_s  # for people; the lab's own clock is not set back when the machine's is
        self._zero = loop.now() - begun_s
        self.proc_pid = int(Path("/proc/self").readlink().name)
        self.cluster = Cluster(spec.topology)
        self.plan = plan.build_nothing()
        self.bare = self.plan  # without what only ending pods need
        self._serving_udp: Serving | None = None
        self.journal = Journal()
        self.recorder = Recorder()
        self.letting_go = LettingGo(self)
        self.kernel = Kernel()
        self._giving_again = GivingAgain(loop, self._tell_again, self.log)
        self.agents = Agents(loop, self._on_agent_restart)
        self.names = Names(self.agents, self.log)
        if spec.topology.cluster.dns:
            self.names.start()
        self.daemons = programs.Daemons(loop, self.files, self.netns_path, self.log)
        self.speaking = Speaking(loop, self.netns_path, self.log)
        self.relays = Relays(loop, self.netns_path, self.log)
        self.balancing = Balancing(loop, self.agents, self.netns_path, self.log)
        self.ingresses = Ingresses(loop, self.files, self.netns_path, self.log)
        self.processes = Processes(loop, self.files, self._on_process)
        self.sandboxes = Sandboxes(loop, self.files, self.proc_pid, self._remove_directory)
        self._until: list[tuple[Callable[[Cluster], bool], Callable[[], None]]] = []
        self._due: float | None = None  # the moment on the lab's clock for which a timer runs
        from netlab.lab.learning import Learning
        from netlab.lab.readiness import Readiness  # it knows Lab, which this file makes

        self.readiness = Readiness(self)
        self.learning = Learning(self)
        proxy = spec.topology.cluster.proxy
        if proxy.mode == "ipvs" and proxy.sync_period_s > 0:
            from netlab.lab.resync import Resync

            self.resync = Resync(self, proxy.sync_period_s)
        self.loads: dict[int, Loading] = {}
        self.ports = SourcePorts()

    def info(self) -> dict[str, Any]:
        """What `ls` shows and what a client needs to join. The DNS pods are the lab's own and not counted."""
        pods = [pod for pod in self.cluster.pods.values() if not dns.is_server(pod.meta.namespace, pod.meta.labels)]
        return {
            "name": self.spec.name,
            "version": self.spec.version,
            "started": self.started,
            **self.cluster.topology.cluster.proxy.told,
            "nodes": len(self.cluster.nodes),
            "pods": len(pods),
            "ready": sum(pod.ready for pod in pods),
            **({"problems": problems} if (problems := routing_http.problems_of(self.cluster)) else {}),
        }

    @property
    def now(self) -> Cluster:
        """The cluster, its clock at this moment: what every change starts from."""
        return self.cluster.with_(clock=self.loop.now() - self._zero)

    # ------------------------------------------------------------ change

    def build(self) -> None:
        """From nothing to the lab of the specification. Raises MachineError where the kernel lacks what the proxy mode needs."""
        proxy = self.spec.topology.cluster.proxy
        if why := tools.why_not(proxy.mode, proxy.scheduler):
            raise MachineError(f"mode {proxy.mode} cannot run here: {why}")
        self.change(self.spec.cluster or controllers.initial(self.spec.topology, self.spec.objects))

    def change(self, cluster: Cluster, grace_s: float | None = None) -> None:
        """Make the kernel be what this cluster asks for.

        `grace_s`: for how long at most connections of pods that go are finished (None: as the pods say; 0: they are cut).
        """
        self.letting_go.make_way(cluster)
        if again := self._replaced(cluster):
            # A StatefulSet's new pod has the name of the old one, and so its namespace's. It is another, empty namespace.
            rest = {key: pod for key, pod in cluster.pods.items() if key not in again}
            self._install(cluster.with_(pods=rest), grace_s, again)
        self._install(cluster, grace_s)
        self.readiness.update()
        self._wait_for_due()
        self._tell_waiting()

    def _replaced(self, cluster: Cluster) -> frozenset[Key]:
        """Pods that are others than those of the same name before."""
        before = self.cluster.pods
        uids = ((key, pod.meta.uid) for key, pod in cluster.pods.items() if key in before)
        return frozenset(key for key, uid in uids if before[key].meta.uid != uid)

    def _install(self, cluster: Cluster, grace_s: float | None, abrupt: frozenset[Key] = frozenset()) -> None:
        """`abrupt`: pods that go and whose connections are cut."""
        self.names.tell(cluster, early=True)
        try:
            going = leaving(self.cluster, cluster, grace_s, abrupt)
            bare, ending, new, difference = self._planned(cluster, going)
        except NetlabError:
            self.names.tell(self.cluster)
            raise
        cluster = cluster.with_(ending=ending.pods)
        self.journal.changed(self.cluster, cluster)
        self.recorder.changed(self.cluster, cluster, time.time())
        self.cluster = cluster  # what is wanted; should the kernel refuse, the next change tries again from the old plan
        self.letting_go.ending = ending
        self.apply(difference)
        self.learning.update(
            tuple(op for op in self.plan.ops.values() if isinstance(op, ops.Learned) and op.identity not in new.ops)
        )
        self.plan, self.bare = new, bare
        self.sandboxes.update(cluster.pods.values())
        self.letting_go.look()

    def _planned(
        self, cluster: Cluster, going: Mapping[Key, tuple[Pod, float]]
    ) -> tuple[plan.Plan, Ending, plan.Plan, plan.Diff]:
        """The plan of the cluster, who is ending then, the plan with what those need, and what is new in it. Raises where this
        machine cannot do it.
        """
        bare = plan.build(cluster)
        ending = self.letting_go.ending.joined_by(going, self.plan, bare, self.loop.now(), is_link_level)
        new = ending.keep(bare)
        difference = plan.diff(self.plan, new)
        ingresses.check(difference.added)
        for op in difference.added:
            if isinstance(op, ops.Daemon):
                programs.check(op)
        qdisc.check(op.value for op in difference.added if isinstance(op, ops.Qdisc))
        return bare, ending, new, difference

    def when_settled(self, call: Callable[[NetlabError | None], None]) -> None:
        """Call once nothing is on its way any more: pods answer, routes are learned. With an error if that is never so."""
        self.readiness.when_settled(lambda: self.learning.when_learned(call))

    def try_change(self, cluster: Cluster) -> None:
        """As `change`, for what happens by itself: a refusal is logged and tried again, because nobody waits for the answer."""
        try:
            self.change(cluster)
        except NetlabError as error:
            self.log(f"a change did not reach the kernel, trying again in {RETRY_S:g} s: {error}")
            self.loop.after(RETRY_S, lambda: self.try_change(self.now))

    def when(self, holds: Callable[[Cluster], bool], call: Callable[[], None]) -> None:
        """Call once the cluster is as `holds` asks, now or after some change."""
        self._until.append((holds, call))
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        for entry in [one for one in self._until if one[0](self.cluster)]:
            self._until.remove(entry)
            entry[1]()

    def _wait_for_due(self) -> None:
        """What time alone does (a node counts as lost, a toleration ends) is done when its time has come."""
        due = controllers.next_due(self.cluster)
        if due is not None and due != self._due:
            self.loop.after(max(0.0, due - self.now.clock), lambda: self._on_due(due))
        self._due = due

    def _on_due(self, due: float) -> None:
        if self._due == due:
            self._due = None
            self.try_change(controllers.settle(self.cluster.with_(clock=max(due, self.now.clock))))

    def apply(self, difference: plan.Diff) -> None:
        """Make, then switch the rules over, then remove."""
        added, removed = difference.added, difference.removed
        self._write_files(op for op in added if isinstance(op, ops.File))
        self.kernel.apply((), [op for op in added if is_link_level(op)])
        for op in added:
            if isinstance(op, ops.Daemon):
                self.daemons.run(op)
        self._listen([op for op in added if isinstance(op, ops.Listener)])
        self.names.tell(self.cluster)
        relays = [op for op in added if isinstance(op, ops.Relay)]
        self.relays.open(relays)
        self.balancing.load(op for op in added if isinstance(op, ops.VirtualServer))
        self._load(difference)
        self.relays.trim(relays)
        self.speaking.announce([op for op in added if isinstance(op, ops.Announcement)])
        self.ingresses.configure(op for op in added if isinstance(op, ops.IngressProxy))
        self._forget_stale_flows()
        self._start_processes(op for op in added if isinstance(op, ops.Process))
        for op in removed:
            if isinstance(op, ops.Process):
                self.processes.stop(op)  # its container is gone, or its program has ended by itself
            elif isinstance(op, ops.Daemon):
                self.daemons.stop(op)
        self._withdraw([op for op in removed if isinstance(op, ops.Announcement)])
        self.ingresses.close(op for op in removed if isinstance(op, ops.IngressProxy))
        self.relays.close(op for op in removed if isinstance(op, ops.Relay))
        self.balancing.unload(op for op in removed if isinstance(op, ops.VirtualServer))
        self._unlisten([op for op in removed if isinstance(op, ops.Listener)])
        self.kernel.apply([op for op in removed if is_link_level(op)], ())
        for op in removed:
            if isinstance(op, ops.File):
                (self.files / op.path).unlink(missing_ok=True)
        self.names.wait()

    def _withdraw(self, gone: Sequence[ops.Announcement]) -> None:
        """Answer no more for these addresses, and let everyone forget who did: what is judged is what there is, not what the
        caches of a LAN will hold for another minute.
        """
        self.speaking.withdraw(gone)
        legs = (
            [op for op in self.plan.ops.values() if isinstance(op, ops.Veth) and op.peer_netns.startswith("lan/")] if gone else []
        )
        known = [("neighbour", leg.netns, leg.device, str(op.address)) for op in gone for leg in legs]
        if known:
            self.kernel.repair((), known)

    def _write_files(self, files: Iterable[ops.File]) -> None:
        for file in files:
            path = self.files / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text, errors="surrogateescape")

    def _load(self, difference: plan.Diff) -> None:
        before = {old.identity: old.value for old, _ in difference.changed if isinstance(old, ops.Ruleset)}
        todo = [
            (self.netns_path(op.netns), op.netns, op.value, before.get(op.identity))
            for op in difference.added
            if isinstance(op, ops.Ruleset)
        ]
        for op in difference.removed:
            if isinstance(op, ops.Ruleset):
                todo.append((self.netns_path(op.netns), op.netns, replace(op.value, tables=()), op.value))
        begun = time.monotonic()
        rule_texts.load_all(lambda texts: self.agents.call("loader", "run", texts), todo)
        self.journal.loaded(difference, time.monotonic() - begun)

    def _forget_stale_flows(self) -> None:
        """Once endpoints of a UDP port have changed: a flow whose endpoint has gone is forgotten, and its next packet
        chooses anew.
        """
        relays = self.relays.ops()
        serving = relayed_udp(self.cluster, relays) if relays else serving_udp(self.cluster)
        if self._serving_udp is not None and serving != self._serving_udp:
            paths = [self.netns_path(f"node/{name}") for name in self.cluster.nodes]
            self.agents.call("loader", "stale_udp", paths, serving)
        self._serving_udp = serving

    def _listen(self, listeners: Sequence[ops.Listener]) -> None:
        wanted = [(self.netns_path(op.netns), op) for op in listeners]
        names = [one for one in wanted if one[1].persona == dns.PERSONA]
        others = [one for one in wanted if one[1].persona != dns.PERSONA]
        if names:
            self.names.listen(names)
        if others:
            for problem in self.agents.call("responder", "listen", others):
                self.log(problem)

    def _unlisten(self, listeners: Sequence[ops.Listener]) -> None:
        names = [op.identity for op in listeners if op.persona == dns.PERSONA]
        if names:
            self.names.close(names)
        self.letting_go.close([(op.netns, op.identity) for op in listeners if op.persona != dns.PERSONA])

    def _start_processes(self, processes: Iterable[ops.Process]) -> None:
        for op in processes:
            self.processes.ensure(op, self.place(op.pod, op.container, starting=True))

    def _remove_directory(self, directory: str) -> None:
        self.agents.work(lambda ok, answer: None if ok else self.log(f"{directory}: {answer}"), "remove", directory)

    # ------------------------------------------------------------ places

    def netns_path(self, netns: str) -> str:
        """A path that opens this namespace, from any process of the lab."""
        try:
            return f"/proc/{self.proc_pid}/fd/{self.kernel.fds[netns]}"
        except KeyError:
            raise KernelError(f"the lab has no namespace {netns}") from None

    def place(self, target: Ref, container: str | None = None, starting: bool = False) -> Place:
        """Where a program for this pod (in this container, or in none), node or host runs."""
        netns = netns_of(self.cluster, target)
        if target.kind != "pod":  # iptables-legacy's lock is the machine's otherwise, and only root may open it
            own = self.files / str(target)
            lock = (("XTABLES_LOCKFILE", str(self.files / "xtables.lock")),)
            return Place(self.netns_path(netns), str(own) if (own / "hosts").exists() else "", target.name, lock)
        pod = self.cluster.pods[Key(target.namespace, target.name)]
        etc = self.files / str(target)
        environment = discovery.environment(self.cluster, pod)
        one = next((found for found in pod.all_containers if found.name == container), None)
        if one is not None:
            _, environment = variables.resolved(self.cluster, pod, one, environment)
        name = discovery.hostname(pod)
        plain = Place(self.netns_path(netns), str(etc) if etc.is_dir() else "", name, tuple(environment.items()))
        if one is None or not (runs_program(one) or one.mounts):
            return plain
        return self.sandboxes.place(pod, one, plain, self.processes.pid(target, one.name), starting)

    # ------------------------------------------------------------ what happens by itself

    def _on_agent_restart(self, name: str) -> None:
        if name == "dns":
            self.names.restart()
        self._giving_again.restarted(name)

    def _tell_again(self, name: str) -> None:
        """Give a new agent what the one before it held. Raises NetlabError where it does not take it."""
        if name == "loader":
            self.balancing.load(op for op in self.plan.ops.values() if isinstance(op, ops.VirtualServer))
        elif name == "responder":
            self._listen([op for op in self._listeners() if op.persona != dns.PERSONA])
        elif name == "dns":
            self.names.restart()
            told = self.agents.dns
            self._listen([op for op in self._listeners() if op.persona == dns.PERSONA])
            self.names.tell(self.cluster)
            self.names.wait()
            self.agents.call("dns", "listening")
            if self.agents.dns is not told:
                raise AgentGone("the lab's dns process died of what it was told")

    def _listeners(self) -> list[ops.Listener]:
        return [op for op in self.plan.ops.values() if isinstance(op, ops.Listener)]

    def _on_process(self, op: ops.Process, code: int) -> None:
        """A container's program has ended."""
        key = Key(op.pod.namespace, op.pod.name)
        self.log(f"container {op.container} of {op.pod} ended with exit code {code}")
        self.try_change(controllers.container_ended(self.now, key, op.uid, op.container, op.run, code))

    def log(self, line: str) -> None:
        """Print to the lab's log. A full disk costs the line, not the lab."""
        self.journal.lab(line)
        with contextlib.suppress(OSError):
            print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


def is_link_level(op: ops.Op) -> bool:
    running = ops.Listener | ops.Process | ops.File | ops.Relay | ops.Daemon | ops.IngressProxy
    others = running | ops.Ruleset | ops.VirtualServer | ops.Learned | ops.Announcement
    return not isinstance(op, others)
