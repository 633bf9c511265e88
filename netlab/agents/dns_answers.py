"""What the cluster's DNS server answers: one packet in, one packet out, no sockets.

Decides the answer to any packet, also to one that is no question. Refuses to know how packets travel and where records come from.

- A name that exists without records of the type asked for is NODATA, one that does not exist NXDOMAIN; both carry the zone's SOA,
  whose minimum is the negative TTL.
- A name outside cluster.local and the reverse zones does not exist here: NXDOMAIN, without a SOA (nothing to remember) and not
  authoritative. Nothing is ever forwarded: no packet leaves the lab. REFUSED would be as true, but musl's resolver passes over
  REFUSED and waits until its time is up.
- An ExternalName is a CNAME; its target is followed inside cluster.local only.
- Several records of one name come in another order each time, as CoreDNS' loadbalance does it.
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from dnslib import (
    AAAA,
    CLASS,
    CNAME,
    EDNS0,
    NS,
    OPCODE,
    PTR,
    QTYPE,
    RCODE,
    RR,
    SOA,
    SRV,
    TXT,
    A,
    DNSError,
    DNSHeader,
    DNSLabel,
    DNSRecord,
)

from netlab.dns import DOMAIN, REVERSE, SERVER, Record, Records, Type
from netlab.model import Key

TTL_S = 5
NEGATIVE_TTL_S = 5
UDP_BYTES = 512
EDNS_BYTES = 1232
"""The largest datagram sent: below every path MTU, so that none is ever cut into fragments (DNS flag day 2020)."""
REMEMBERED = 4096
MOST_ORDERS = 8
MOST_ALIASES = 8
ZONES = (DOMAIN, *REVERSE)
_POD = f".pod.{DOMAIN}"
_DATA = {"CNAME": CNAME, "NS": NS, "PTR": PTR, "TXT": TXT}
_TRANSFERS = (QTYPE.AXFR, QTYPE.IXFR)


class Names:
    """The records by name, and which names exist because others lie below them."""

    def __init__(self) -> None:
        self.serial = 1
        self._origins: dict[Key, Records] = {}
        self._records: dict[str, list[Record]] = {}
        self._below: dict[str, int] = {}

    def update(self, changes: Mapping[Key, Records]) -> None:
        """Replace the records of these origins; () takes them away."""
        for key, records in changes.items():
            for record in self._origins.pop(key, ()):
                self._count(record, -1)
            if records:
                self._origins[key] = records
            for record in records:
                self._count(record, 1)
        self.serial = self.serial % 0xFFFFFFFF + 1

    def clear(self) -> None:
        self.update(dict.fromkeys(self._origins, ()))

    def records(self, name: str) -> list[Record]:
        """The records of a name; of a pod's deprecated name (1-2-3-4.NAMESPACE.pod) those that it stands for."""
        found = self._records.get(name)
        return found if found is not None else list(self._pod(name))

    def exists(self, name: str) -> bool:
        return name in self._records or name in self._below or bool(self.records(name))

    def _count(self, record: Record, change: int) -> None:
        name = record.name
        own = self._records.setdefault(name, [])
        if change > 0:
            own.append(record)
        else:
            own.remove(record)
        if not own:
            del self._records[name]
        while "." in name:
            name = name.partition(".")[2]
            self._below[name] = self._below.get(name, 0) + change
            if not self._below[name]:
                del self._below[name]

    def _pod(self, name: str) -> Iterator[Record]:
        if not name.endswith(_POD):
            return
        dashed, _, namespace = name.removesuffix(_POD).partition(".")
        if f"{namespace}{_POD}" not in self._records:
            return
        try:
            yield Record(name, "A", str(IPv4Address(dashed.replace("-", "."))))
        except ValueError:
            try:
                yield Record(name, "AAAA", str(IPv6Address(dashed.replace("-", ":"))))
            except ValueError:
                return


class Resolver:
    """Answers packets from `names`, and remembers what it answered until `update`."""

    def __init__(self) -> None:
        self.names = Names()
        self._remembered: dict[tuple[bytes, bool], list[bytes]] = {}
        self._turn = 0

    def update(self, changes: Mapping[Key, Records]) -> None:
        self.names.update(changes)
        self._remembered.clear()

    def clear(self) -> None:
        self.names.clear()
        self._remembered.clear()

    def answer(self, packet: bytes, stream: bool = False) -> bytes | None:
        """The answer to one packet; None: it deserves none (too short to be a question, or itself an answer)."""
        if len(packet) < 12 or packet[2] & 0x80:
            return None
        key = (packet[2:], stream)
        known = self._remembered.get(key)
        self._turn += 1
        if known is None:
            known = self._answers(packet, stream)
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = known
        return packet[:2] + known[self._turn % len(known)][2:]

    def _answers(self, packet: bytes, stream: bool) -> list[bytes]:
        """The answer in every order of its records that is given in turn."""
        try:
            query = DNSRecord.parse(packet)
        except (DNSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError):
            return [_refusal(packet, RCODE.FORMERR)]
        if any(len(part) > 63 for question in query.questions for part in question.qname.label):
            return [_refusal(packet, RCODE.FORMERR)]  # the parser takes such a name, and nothing can be said about it
        options = [extra for extra in query.ar if extra.rtype == QTYPE.OPT]
        if query.header.opcode != OPCODE.QUERY:
            return [_refusal(packet, RCODE.NOTIMP)]
        if len(query.questions) != 1 or len(options) > 1:
            return [_refusal(packet, RCODE.FORMERR)]
        option = options[0] if options else None
        limit = 65535 if stream else min(max(UDP_BYTES, option.rclass), EDNS_BYTES) if option is not None else UDP_BYTES
        whole, count = self._reply(query, option, 0)
        replies = [whole, *(self._reply(query, option, turn)[0] for turn in range(1, min(count, MOST_ORDERS)))]
        return [_fitted(reply, limit) for reply in replies]

    def _reply(self, query: DNSRecord, option: RR | None, turn: int) -> tuple[DNSRecord, int]:
        header = DNSHeader(id=query.header.id, qr=1, aa=0, rd=query.header.rd, ra=0)
        reply = DNSRecord(header, q=query.q)
        count = 0
        if option is not None and (option.ttl >> 16) & 0xFF:
            reply.add_ar(EDNS0(udp_len=EDNS_BYTES, ext_rcode=1))  # BADVERS: only version 0 is known
            return reply, 1
        name = _name(query.q.qname)
        apex = next((zone for zone in ZONES if name is not None and f".{name}".endswith(f".{zone}")), None)
        if query.q.qclass not in (CLASS.IN, 255) or query.q.qtype in _TRANSFERS:
            reply.header.rcode = RCODE.REFUSED
        elif name is None or apex is None:
            reply.header.rcode = RCODE.NXDOMAIN
        else:
            reply.header.aa = 1
            count = self._fill(reply, name, apex, turn)
        if option is not None:
            reply.add_ar(EDNS0(udp_len=EDNS_BYTES))
        return reply, max(1, count)

    def _fill(self, reply: DNSRecord, name: str, apex: str, turn: int) -> int:
        """Put in what is known of the name; the number of records at the end of its aliases."""
        owner, wanted = reply.q.qname, QTYPE[reply.q.qtype]
        for _ in range(MOST_ALIASES):
            records = [record for record in self.names.records(name) if record.type]
            alias = next((record for record in records if record.type == "CNAME"), None)
            if alias is None or wanted in ("CNAME", "ANY"):
                break
            reply.add_answer(_rr(owner, alias))
            name, owner = alias.value, DNSLabel(alias.value)
            if not f".{name}".endswith(f".{DOMAIN}"):
                return 0
        found = [record for record in records if wanted in (record.type, "ANY")]
        turn %= len(found) or 1
        found = found[turn:] + found[:turn]
        reply.add_answer(*(_rr(owner, record) for record in found))
        if wanted in ("SOA", "ANY") and name in ZONES:
            reply.add_answer(self._soa(name))
        elif not found:
            reply.header.rcode = RCODE.NOERROR if self.names.exists(name) else RCODE.NXDOMAIN
            reply.add_auth(self._soa(apex))
        for target in dict.fromkeys(record.value for record in found if record.type in ("SRV", "NS")):
            reply.add_ar(*(_rr(DNSLabel(target), one) for one in self.names.records(target) if one.type in ("A", "AAAA")))
        return len(found)

    def _soa(self, apex: str) -> RR:
        times = (self.names.serial, 7200, 1800, 86400, NEGATIVE_TTL_S)
        return RR(apex, QTYPE.SOA, ttl=NEGATIVE_TTL_S, rdata=SOA(SERVER, f"hostmaster.{DOMAIN}", times))


def _name(label: DNSLabel) -> str | None:
    """The name as it is looked up; None for one that nothing here can be called."""
    labels: tuple[bytes, ...] = label.label
    if any(b"." in part or not part.isascii() for part in labels):
        return None
    return b".".join(labels).lower().decode("ascii")


def _rr(owner: DNSLabel, record: Record) -> RR:
    kind: Type = record.type
    match kind:
        case "A":
            data = A(record.value)
        case "AAAA":
            data = AAAA(record.value)
        case "SRV":
            data = SRV(0, 100, record.port, record.value)
        case _:
            data = _DATA[kind](record.value)
    return RR(owner, getattr(QTYPE, kind), ttl=TTL_S, rdata=data)


def _fitted(reply: DNSRecord, limit: int) -> bytes:
    """The packet; where it is too long first without its additional records, then cut, so that the client asks over TCP."""
    data: bytes = reply.pack()
    if len(data) <= limit:
        return data
    reply.ar = [extra for extra in reply.ar if extra.rtype == QTYPE.OPT]
    data = reply.pack()
    if len(data) <= limit:
        return data
    reply.rr, reply.auth = [], []
    reply.header.tc = 1
    return bytes(reply.pack())


def _refusal(packet: bytes, code: int) -> bytes:
    """A bare header: for what cannot be read, there is nothing to repeat."""
    return packet[:2] + bytes((0x80 | (packet[2] & 0x79), code)) + bytes(8)
