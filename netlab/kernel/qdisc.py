"""Queueing disciplines: what an impaired device has, as netlink messages, and read back.

Decides: netem at the root for delay, jitter, loss, duplication, reordering and corruption; tbf below it, or alone, for a rate, so
that packets are lost and delayed on the way and queue for the bandwidth, as tc-netem(8) shows it. Both are only what leaves
the device. Refuses to know which devices are impaired, and why.

Numbers: include/uapi/linux/pkt_sched.h. Times go in nanoseconds and bursts in bytes (TCA_NETEM_LATENCY64, TCA_TBF_BURST), so that
nothing depends on the kernel's clock ticks.
"""

import errno
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from netlab.errors import MachineError
from netlab.kernel import netlink as nl
from netlab.kernel.netlink import Message, Socket
from netlab.model import Impairment

RTM_NEWQDISC, RTM_DELQDISC, RTM_GETQDISC = 36, 37, 38
NETEM_LIMIT = 100_000
"""Packets on their way inside a netem. Its own default, 1,000, would lose packets of its own at 100 ms and 120 Mbit/s."""
_TCMSG = struct.Struct("=BxxxiIII")
_ROOT, _NETEM, _BELOW_NETEM, _TBF = 0xFFFFFFFF, 0x10000, 0x10001, 0x20000
_TCA_KIND, _TCA_OPTIONS = 1, 2
_NETEM_QOPT = struct.Struct("=IIIIII")
_NETEM_REORDER, _NETEM_CORRUPT, _NETEM_LATENCY64, _NETEM_JITTER64 = 3, 4, 10, 11
_TBF_PARMS, _TBF_RATE64, _TBF_BURST = 1, 4, 6
_RATESPEC = struct.Struct("=BBHhHI")
_TBF_QOPT_BYTES = 2 * _RATESPEC.size + 12
_LINKLAYER_ETHERNET = 1
_FRAME_BYTES = 1514
_SET = nl.NLM_F_CREATE | nl.NLM_F_REPLACE


class Shaped(NamedTuple):
    """What a device's qdiscs do to what it sends. `foreign`: the kind of a qdisc that no impairment of ours makes."""

    value: Impairment
    foreign: str = ""

    def __str__(self) -> str:
        return f"a qdisc {self.foreign}" if self.foreign else str(self.value) or "no impairment"


# ---------------------------------------------------------------- to the kernel


def install(ifindex: int, value: Impairment) -> Iterator[Message]:
    """The device's qdiscs, new or changed in their numbers; qdiscs of another shape must have been removed before."""
    if value.needs_netem():
        yield _set(ifindex, _NETEM, _ROOT, "netem", _netem(value))
    if value.rate_bps is not None:
        yield _set(ifindex, _TBF, _BELOW_NETEM if value.needs_netem() else _ROOT, "tbf", _tbf(value.rate_bps))


def remove(ifindex: int) -> Message:
    """The device as the kernel makes it; refused with ENOENT where it is."""
    return Message(RTM_DELQDISC, 0, _TCMSG.pack(0, ifindex, 0, _ROOT, 0))


def probe(kind: str) -> Message:
    """To be refused by `lo`: a kernel that knows the kind misses its options (EINVAL), another has never heard of it (ENOENT)."""
    return Message(RTM_NEWQDISC, _SET, _TCMSG.pack(0, 1, _NETEM, _ROOT, 0) + nl.attr_text(_TCA_KIND, kind))


def _set(ifindex: int, handle: int, parent: int, kind: str, options: bytes) -> Message:
    body = _TCMSG.pack(0, ifindex, handle, parent, 0) + nl.attr_text(_TCA_KIND, kind) + nl.attr(_TCA_OPTIONS, options)
    return Message(RTM_NEWQDISC, _SET, body)


def _netem(value: Impairment) -> bytes:
    """A struct, then attributes. Every one is given: what a change leaves out would stay as it was."""
    gap = 1 if value.reorder else 0
    options = _NETEM_QOPT.pack(0, NETEM_LIMIT, _probability(value.loss), gap, _probability(value.duplicate), 0)
    options += nl.attr(_NETEM_LATENCY64, struct.pack("=q", round(value.delay_s * 1e9)))
    options += nl.attr(_NETEM_JITTER64, struct.pack("=q", round(value.jitter_s * 1e9)))
    options += nl.attr(_NETEM_REORDER, struct.pack("=II", _probability(value.reorder), 0))
    return options + nl.attr(_NETEM_CORRUPT, struct.pack("=II", _probability(value.corrupt), 0))


def _probability(share: float) -> int:
    return round(share * 0xFFFFFFFF)


def _tbf(rate_bps: int) -> bytes:
    rate = rate_bps // 8
    spec = _RATESPEC.pack(0, _LINKLAYER_ETHERNET, 0, -1, 0, min(rate, 0xFFFFFFFF))
    limit = min(queue_bytes(rate_bps), 0xFFFFFFFF)
    options = nl.attr(_TBF_PARMS, spec + bytes(_RATESPEC.size) + struct.pack("=III", limit, 0, 0))
    options += nl.attr_u32(_TBF_BURST, min(burst_bytes(rate_bps), 0xFFFFFFFF))
    return options + (nl.attr(_TBF_RATE64, struct.pack("=Q", rate)) if rate > 0xFFFFFFFF else b"")


def burst_bytes(rate_bps: int) -> int:
    """What may pass at once: 4 ms of the rate, so that a late timer costs nothing; at least two full frames."""
    return max(rate_bps // 2000, 2 * _FRAME_BYTES)


def queue_bytes(rate_bps: int) -> int:
    """What may wait for the bandwidth: 50 ms of the rate, at least ten full frames; more is lost."""
    return burst_bytes(rate_bps) + max(rate_bps // 160, 10 * _FRAME_BYTES)


def check(values: Iterable[Impairment]) -> None:
    """Raises: MachineError when this kernel lacks what the impairments need. Asked in the caller's own namespace, of `lo`."""
    wanted = [(kind, value) for value in values for kind in kinds(value)]
    asked = dict.fromkeys(kind for kind, _ in wanted)
    if not asked:
        return
    with Socket() as sock:
        missing = [kind for kind in asked if any(refused.errno == errno.ENOENT for refused in sock.run([probe(kind)]))]
    if missing:
        kind = missing[0]
        value = next(value for name, value in wanted if name == kind)
        use = "delay, jitter, loss, duplicate, reorder and corrupt" if kind == "netem" else "rate"
        raise MachineError(f"this kernel has no {kind}, which {use} of links need (here: {value}): {REMEDY.format(kind=kind)}")


REMEDY = (
    "as root: modprobe sch_{kind}; the module is in Debian's kernels, in linux-modules-extra-$(uname -r) on Ubuntu, in "
    "kernel-modules-extra on Fedora; `vagrant up` gives a machine that has it"
)


def kinds(value: Impairment) -> tuple[str, ...]:
    """The kernel's qdiscs that the impairment is made of."""
    return (*(("netem",) if value.needs_netem() else ()), *(("tbf",) if value.rate_bps is not None else ()))


def same(planned: Impairment, found: Impairment) -> bool:
    """Equal but for what is lost in the kernel's units: bytes a second, nanoseconds, shares of 2**32."""
    return _rounded(planned) == _rounded(found)


def _rounded(value: Impairment) -> tuple[float, ...]:
    shares = (value.loss, value.duplicate, value.reorder, value.corrupt)
    times = (value.delay_s, value.jitter_s)
    return ((value.rate_bps or 0) // 8, *(round(time * 1e9) for time in times), *(round(share, 6) for share in shares))


# ---------------------------------------------------------------- from the kernel


def shaped(sock: Socket) -> dict[int, Shaped]:
    """Device index -> what its qdiscs do; devices that have only what the kernel gave them are left out."""
    found: dict[int, Shaped] = {}
    for kind, body in sock.dump(Message(RTM_GETQDISC, 0, _TCMSG.pack(0, 0, 0, 0, 0))):
        if kind != RTM_NEWQDISC:
            continue
        _, ifindex, handle, _, _ = _TCMSG.unpack_from(body)
        if handle:  # the kernel's own have none
            was = found.get(ifindex, Shaped(Impairment()))
            found[ifindex] = _with(was, nl.attributes(body, _TCMSG.size))
    return found


def _with(was: Shaped, attributes: dict[int, bytes]) -> Shaped:
    kind = attributes.get(_TCA_KIND, b"").rstrip(b"\0").decode(errors="replace")
    options = attributes.get(_TCA_OPTIONS, b"")
    if kind == "netem" and len(options) >= _NETEM_QOPT.size:
        return was._replace(value=_read_netem(was.value, options))
    if kind == "tbf":
        return was._replace(value=_read_tbf(was.value, options))
    return was._replace(foreign=kind)


def _read_netem(value: Impairment, options: bytes) -> Impairment:
    _, _, loss, _, duplicate, _ = _NETEM_QOPT.unpack_from(options)
    found = nl.attributes(options, _NETEM_QOPT.size)
    return value.with_(
        delay_s=_seconds(found.get(_NETEM_LATENCY64)),
        jitter_s=_seconds(found.get(_NETEM_JITTER64)),
        loss=_share(loss),
        duplicate=_share(duplicate),
        reorder=_first_share(found.get(_NETEM_REORDER)),
        corrupt=_first_share(found.get(_NETEM_CORRUPT)),
    )


def _read_tbf(value: Impairment, options: bytes) -> Impairment:
    found = nl.attributes(options)
    parameters = found.get(_TBF_PARMS, b"")
    if len(parameters) < _TBF_QOPT_BYTES:
        return value
    rate = _RATESPEC.unpack_from(parameters)[-1]
    if _TBF_RATE64 in found:
        (rate,) = struct.unpack("=Q", found[_TBF_RATE64])
    return value.with_(rate_bps=rate * 8)


def _seconds(data: bytes | None) -> float:
    return round(struct.unpack("=q", data)[0] / 1e9, 9) if data else 0.0


def _share(number: int) -> float:
    """As it was given: to a millionth, which is finer than anyone writes."""
    return round(number / 0xFFFFFFFF, 6)


def _first_share(data: bytes | None) -> float:
    return _share(struct.unpack_from("=I", data)[0]) if data else 0.0
