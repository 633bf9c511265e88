"""What the kernel does to packets without a word: reverse path filter, no forwarding, rules where its trace does not reach. Pure.

Decides which settings say so, and which of them explains that a packet came in and did not go on. An inference from settings and
routes, and told as one; refuses to guess where none fits.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from netlab.probes.story_parts import best_route, route_words
from netlab.probes.witnessed import Shown

Settings = Mapping[str, str]
EARLY = ("netdev", "bridge")
"""Families of nftables whose hooks come before the IP stack's, and so before a packet is traced."""
UNTRACED = "untraced tables"
"""Under this name: FAMILY/NAME of the tables of those families, with blanks between."""


def keys(devices: Iterable[str], version: int) -> list[str]:
    """The sysctls that decide whether a packet goes on."""
    if version == 6:
        return ["net/ipv6/conf/all/forwarding"]
    return ["net/ipv4/ip_forward", *(f"net/ipv4/conf/{name}/rp_filter" for name in sorted({"all", *devices}))]


def suspicion(netns: str, packet: Shown, device: str, seen: Settings, routes: Sequence[Mapping[str, Any]], mine: bool) -> str:
    """Why a packet that came in through the device did not go on; '' where nothing explains it. `mine`: it was for `netns`."""
    forwarding = "net/ipv6/conf/all/forwarding" if ":" in packet.dst else "net/ipv4/ip_forward"
    if not mine and seen.get(forwarding) == "0":
        return f"{netns} does not forward packets: {forwarding.replace('/', '.')} is 0"
    modes = {name: seen.get(f"net/ipv4/conf/{name}/rp_filter", "0") for name in ("all", device)}
    strictest = max(modes, key=lambda name: (modes[name] != "0", modes[name]))
    back = best_route(routes, packet.src)
    filtered = f"dropped in {netns} by its reverse path filter: net.ipv4.conf.{strictest}.rp_filter is {modes[strictest]}"
    if back is None and modes[strictest] != "0":
        return f"{filtered}, and no route leads back to {packet.src}"
    if back is not None and modes[strictest] == "1" and back.get("dev") != device:
        return f"{filtered}, and the route back to {packet.src} is `{route_words(back)}`, not through {device}"
    if tables := seen.get(UNTRACED):
        named = ", ".join(one.replace("/", " ") for one in tables.split())
        return f"{netns} took it in and did not pass it on; it has rules ahead of the IP stack, where nothing is traced: {named}"
    return ""
