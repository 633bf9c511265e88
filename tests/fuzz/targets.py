"""What is fuzzed: a target takes bytes and may raise only what its reader promises. Whatever else comes out is a crash."""

import contextlib
import struct
from collections.abc import Callable

from netlab import controllers, plan
from netlab.agents import answers, dialling
from netlab.agents.dns_answers import Resolver
from netlab.errors import ApiError, InputError, NetlabError
from netlab.kernel import conntrack, listing, nft_trace, rule_listing
from netlab.kernel import netlink as nl
from netlab.lab import http
from netlab.lab.naming import names_of
from netlab.manifest import Source, default_topology, read_objects, read_scenario, read_topology
from netlab.observe import annotating, tcpdump
from netlab.probes import packets
from tests.fuzz import paper

Target = Callable[[bytes], None]
REFUSED = (ValueError, LookupError, struct.error)
"""What a reader of the kernel's messages says of one that is cut off; the kernel sends none."""


def manifest(data: bytes) -> None:
    """A manifest, and what follows from it: controllers and plan."""
    try:
        loaded = read_objects([Source("fuzz.yaml", data)])
        cluster = controllers.initial(default_topology(), loaded.objects)
    except (InputError, ApiError):
        return
    plan.text(plan.build(cluster))


def topology(data: bytes) -> None:
    """A topology, and the plan of an empty cluster of it."""
    try:
        read = read_topology(Source("fuzz.yaml", data))
        if len(read.nodes) > 20:
            return
        plan.text(plan.build(controllers.initial(read, ())))
    except (InputError, ApiError):
        return


def scenario(data: bytes) -> None:
    """A scenario."""
    try:
        read_scenario(Source("fuzz.yaml", data))
    except InputError:
        return


def dns(data: bytes) -> None:
    """A question to the DNS server."""
    Resolver().answer(data)


def trace(data: bytes) -> None:
    """A message of the kernel's rule trace."""
    try:
        nft_trace.parsed(data)
    except REFUSED:
        return


def connection(data: bytes) -> None:
    """An entry of the kernel's connection tracking: whole, as the kernel sends it, or refused at once."""
    try:
        found = conntrack._entry(data)
    except REFUSED:
        return
    if found is not None:
        conntrack.as_json(found)


def netlink(data: bytes) -> None:
    """A datagram of the kernel's: messages about links, addresses, routes, neighbours, connections and rules met."""
    for kind, _, _, body in nl.split_messages(data):
        try:
            listing.told(kind, body)
            if kind >> 8 == 1:
                conntrack.told(kind & 0xFF | 0x100, body)
            elif kind >> 8 == 10:
                nft_trace.parsed(body)
        except REFUSED:
            continue


def rules(data: bytes) -> None:
    """What nft and iptables-save print, with whatever a user has put into tables of his own."""
    text = data.decode(errors="replace")
    rule_listing.nft_blocks(text)
    rule_listing.iptables_blocks(text)


def frame(data: bytes) -> None:
    """An Ethernet frame of a capture, cut anywhere, and the comment that it gets."""
    annotating.Annotator(names_of(paper.Lab().cluster)).comment(data)


def packet(data: bytes) -> None:
    """A packet that a probe's watcher meets, from its IP header on."""
    packets.seen(data, 0x1234)


def words(data: bytes) -> None:
    """A command line for tcpdump."""
    try:
        tcpdump.split(data.decode(errors="replace").split())
    except InputError:
        return


def request(data: bytes) -> None:
    """Bytes of a client of the lab's API, and what the API makes of its requests."""

    def handled(asked: http.Request, respond: http.Respond) -> None:
        with contextlib.suppress(NetlabError):
            paper.ask(asked)
        respond(http.Response(200, b"ok"))

    paper.connect(data, handled)


def api(data: bytes) -> None:
    """`METHOD PATH?QUERY [CONTENT-TYPE]`, newline, body: requests to the lab's API without their framing."""
    line, _, body = data.partition(b"\n")
    method, _, rest = line.decode("latin-1").partition(" ")
    target, _, kind = rest.partition(" ")
    path, _, query = target.partition("?")
    pairs = dict(one.partition("=")[::2] for one in query.split("&") if one)
    parts = tuple(part for part in path.split("/") if part)
    try:
        paper.ask(http.Request(method, parts, pairs, {"content-type": kind}, body))
    except NetlabError:
        return


def responder(data: bytes) -> None:
    """What a client says to a pod: HTTP, redis' protocol, datagrams; and an answer that /dial gets."""
    pod, client = answers.PodFacts("a"), ("10.0.0.1", 1)
    try:
        buffer = bytearray(data)
        while isinstance(asked := answers.take_request(buffer), answers.Request):
            if isinstance(said := answers.http_answer(asked, "kubia", pod, client), answers.Answer):
                answers.http_bytes(said, pod)
    except answers.Malformed:
        pass
    try:
        buffer, store = bytearray(data), dict[bytes, bytes]()
        while (command := answers.take_command(buffer)) is not None:
            answers.redis_answer(command, store, pod)
    except answers.Malformed:
        pass
    answers.datagram_answer(data, pod, client)
    dialling.response_body(data, ended=False)
    dialling.response_body(data, ended=True)


ALL = (
    manifest, topology, scenario, dns, trace, connection, netlink, rules, frame, packet, words, request, api, responder,
)  # fmt: skip
TARGETS: dict[str, Target] = {one.__name__: one for one in ALL}
