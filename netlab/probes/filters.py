"""Packet filters (classic BPF) for probes: only packets that carry the probe's token cost anything.

Decides where the token stands in each protocol (see packets.py). The programs run on data that starts at the IP header; only on
raw IPv6 sockets it starts behind it, so that the IPv6 half counts from the network header (SKF_NET_OFF), wherever data starts.
Refuses to know sockets.
"""

from collections.abc import Sequence

Instruction = tuple[int, int, int, int]
_Step = tuple[int, int | str, int | str, int]

_LD_W_ABS, _LD_H_ABS, _LD_B_ABS, _LD_W_IND, _LD_H_IND, _LD_B_IND = 0x20, 0x28, 0x30, 0x40, 0x48, 0x50
_LDX_IP_HEADER = 0xB1  # X = 4 * (byte & 0xf)
_AND, _JEQ, _JSET, _RET = 0x54, 0x15, 0x45, 0x06
_RSH, _ADD_X, _TAX = 0x74, 0x0C, 0x07
_ETHERTYPE = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL: the frame's ethertype
_NETWORK = 0xFFF00000  # SKF_NET_OFF: from the network header on
_BEHIND = _NETWORK + 40  # what follows an IPv6 header without extensions: netlab's packets have none
WHOLE = 0x40000

MAGIC = 0x6E65746C
"""`netl`, the first four bytes of a probe's UDP and ICMP payload."""


def run_text(run: int) -> int:
    """The four hexadecimal digits of a run, as the 32-bit word that they are in the payload."""
    return int.from_bytes(f"{run:04x}".encode(), "big")


def assemble(steps: Sequence[_Step | str]) -> tuple[Instruction, ...]:
    """Turn steps with labels (strings between them) into instructions. Jumps are forward only."""
    places: dict[str, int] = {}
    plain: list[_Step] = []
    for step in steps:
        if isinstance(step, str):
            places[step] = len(plain)
        else:
            plain.append(step)

    def offset(target: int | str, at: int) -> int:
        distance = places[target] - at - 1 if isinstance(target, str) else target
        assert 0 <= distance < 256, f"jump to {target} is too far"
        return distance

    return tuple((code, offset(true, at), offset(false, at), value) for at, (code, true, false, value) in enumerate(plain))


def token_filter(run: int, any_udp: bool = False, every_run: bool = False, tunnel: int = 0) -> tuple[Instruction, ...]:
    """Accepts the packets of one run: requests, replies where they can be told, and every ICMP error. `any_udp`: all UDP.

    `every_run`: those of all runs that have the upper byte in common with this one. `tunnel`: what goes to this UDP port,
    whatever it carries.
    """
    mask, text_mask = (0xFF000000, 0xFFFF0000) if every_run else (0xFFFF0000, 0xFFFFFFFF)
    token, text = run << 16 & mask, run_text(run) & text_mask
    return assemble(
        [
            *_prologue(),
            (_JEQ, "tcp", 0, 6),
            (_JEQ, "udp", 0, 17),
            (_JEQ, "icmp", 0, 1),
            (_JEQ, "sctp", "drop", 132),
            "tcp", (_LD_B_IND, 0, 0, 13), (_JSET, 0, "drop", 0x06),
            (_LD_W_IND, 0, 0, 4), (_AND, 0, 0, mask), (_JEQ, "accept", 0, token),
            (_LD_W_IND, 0, 0, 8), (_AND, 0, 0, mask), (_JEQ, "accept", "drop", token),
            "sctp", (_LD_W_IND, 0, 0, 4), (_AND, 0, 0, mask), (_JEQ, "accept", 0, token),
            (_LD_W_IND, 0, 0, 16), (_AND, 0, 0, mask), (_JEQ, "accept", "drop", token),
            "icmp", (_LD_B_IND, 0, 0, 0), (_JEQ, "payload", 0, 8), (_JEQ, "payload", 0, 0), *_errors(),
            "udp", *([(_RET, 0, 0, WHOLE)] if any_udp else []),
            *(((_LD_H_IND, 0, 0, 2), (_JEQ, "accept", 0, tunnel)) if tunnel else ()),
            "payload", (_LD_W_IND, 0, 0, 8), (_JEQ, 0, "drop", MAGIC),
            (_LD_W_IND, 0, 0, 12), (_AND, 0, 0, text_mask), (_JEQ, "accept", "drop", text),
            *_token_v6(token, mask, text, text_mask, any_udp, tunnel),
            *_epilogue(),
        ]
    )  # fmt: skip


def handshake_filter() -> tuple[Instruction, ...]:
    """Accepts TCP segments with SYN or RST and ICMP errors: for real clients, whose numbers the kernel chooses."""
    return assemble(
        [
            *_prologue(),
            (_JEQ, "tcp", 0, 6),
            (_JEQ, "icmp", "drop", 1),
            "tcp", (_LD_B_IND, 0, 0, 13), (_JSET, "accept", "drop", 0x06),
            "icmp", (_LD_B_IND, 0, 0, 0), *_errors(),
            *_prologue_v6(),
            (_JEQ, "tcp6", 0, 6),
            (_JEQ, "icmp6", "drop", 58),
            "tcp6", (_LD_B_ABS, 0, 0, _BEHIND + 13), (_JSET, "accept", "drop", 0x06),
            "icmp6", (_LD_B_ABS, 0, 0, _BEHIND), *_errors_v6(),
            *_epilogue(),
        ]
    )  # fmt: skip


def echo_filter() -> tuple[Instruction, ...]:
    """Accepts every echo request and reply, and ICMP errors: for a real ping."""
    return assemble(
        [
            *_prologue(),
            (_JEQ, 0, "drop", 1),
            (_LD_B_IND, 0, 0, 0), (_JEQ, "accept", 0, 8), (_JEQ, "accept", 0, 0), *_errors(),
            *_prologue_v6(),
            (_JEQ, 0, "drop", 58),
            (_LD_B_ABS, 0, 0, _BEHIND), (_JEQ, "accept", 0, 128), (_JEQ, "accept", 0, 129), *_errors_v6(),
            *_epilogue(),
        ]
    )  # fmt: skip


def greeting_filter(run: int) -> tuple[Instruction, ...]:
    """Accepts TCP segments whose data begins with `GET `, and SYNs of this run: what real clients say, and own test packets."""
    return assemble(
        [
            *_prologue(),
            (_JEQ, 0, "drop", 6),
            (_LD_B_IND, 0, 0, 13), (_JSET, 0, "data", 0x02),
            (_LD_W_IND, 0, 0, 4), (_AND, 0, 0, 0xFFFF0000), (_JEQ, "accept", "drop", run << 16),
            "data", (_LD_B_IND, 0, 0, 12), (_AND, 0, 0, 0xF0), (_RSH, 0, 0, 2), (_ADD_X, 0, 0, 0), (_TAX, 0, 0, 0),
            (_LD_W_IND, 0, 0, 0), (_JEQ, "accept", "drop", int.from_bytes(b"GET ", "big")),
            *_prologue_v6(),
            (_JEQ, 0, "drop", 6),
            (_LD_B_ABS, 0, 0, _BEHIND + 13), (_JSET, 0, "data6", 0x02),
            (_LD_W_ABS, 0, 0, _BEHIND + 4), (_AND, 0, 0, 0xFFFF0000), (_JEQ, "accept", "drop", run << 16),
            "data6", (_LD_B_ABS, 0, 0, _BEHIND + 12), (_AND, 0, 0, 0xF0), (_RSH, 0, 0, 2), (_TAX, 0, 0, 0),
            (_LD_W_IND, 0, 0, _BEHIND), (_JEQ, "accept", "drop", int.from_bytes(b"GET ", "big")),
            *_epilogue(),
        ]
    )  # fmt: skip


def _token_v6(token: int, mask: int, text: int, text_mask: int, any_udp: bool, tunnel: int) -> tuple[_Step | str, ...]:
    return (
        *_prologue_v6(),
        (_JEQ, "tcp6", 0, 6),
        (_JEQ, "udp6", 0, 17),
        (_JEQ, "icmp6", 0, 58),
        (_JEQ, "sctp6", "drop", 132),
        "tcp6", (_LD_B_ABS, 0, 0, _BEHIND + 13), (_JSET, 0, "drop", 0x06),
        (_LD_W_ABS, 0, 0, _BEHIND + 4), (_AND, 0, 0, mask), (_JEQ, "accept", 0, token),
        (_LD_W_ABS, 0, 0, _BEHIND + 8), (_AND, 0, 0, mask), (_JEQ, "accept", "drop", token),
        "sctp6", (_LD_W_ABS, 0, 0, _BEHIND + 4), (_AND, 0, 0, mask), (_JEQ, "accept", 0, token),
        (_LD_W_ABS, 0, 0, _BEHIND + 16), (_AND, 0, 0, mask), (_JEQ, "accept", "drop", token),
        "icmp6", (_LD_B_ABS, 0, 0, _BEHIND), (_JEQ, "payload6", 0, 128), (_JEQ, "payload6", 0, 129), *_errors_v6(),
        "udp6", *(((_RET, 0, 0, WHOLE),) if any_udp else ()),
        *(((_LD_H_ABS, 0, 0, _BEHIND + 2), (_JEQ, "accept", 0, tunnel)) if tunnel else ()),
        "payload6", (_LD_W_ABS, 0, 0, _BEHIND + 8), (_JEQ, 0, "drop", MAGIC),
        (_LD_W_ABS, 0, 0, _BEHIND + 12), (_AND, 0, 0, text_mask), (_JEQ, "accept", "drop", text),
    )  # fmt: skip


def _prologue() -> tuple[_Step | str, ...]:
    """IPv4, first fragment; X is the header's length and A the protocol. Everything else goes to "other"."""
    return (
        (_LD_W_ABS, 0, 0, _ETHERTYPE), (_JEQ, 0, "other", 0x0800),
        (_LD_H_ABS, 0, 0, 6), (_JSET, "drop", 0, 0x1FFF),
        (_LDX_IP_HEADER, 0, 0, 0), (_LD_B_ABS, 0, 0, 9),
    )  # fmt: skip


def _prologue_v6() -> tuple[_Step | str, ...]:
    """IPv6; A is the next header."""
    return "other", (_JEQ, 0, "drop", 0x86DD), (_LD_B_ABS, 0, 0, _NETWORK + 6)


def _errors_v6() -> tuple[_Step, ...]:
    """Unreachable and time exceeded."""
    return (_JEQ, "accept", 0, 1), (_JEQ, "accept", "drop", 3)


def _errors() -> tuple[_Step, ...]:
    return (_JEQ, "accept", 0, 3), (_JEQ, "accept", 0, 5), (_JEQ, "accept", "drop", 11)


def _epilogue() -> tuple[_Step | str, ...]:
    return "accept", (_RET, 0, 0, WHOLE), "drop", (_RET, 0, 0, 0)
