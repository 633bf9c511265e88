"""What is read of a namespace that a packet met, beside its tables: settings and rules that could explain a loss."""

from collections.abc import Iterable, Mapping
from typing import Any

from netlab.kernel import rule_listing, sysctls
from netlab.kernel.namespaces import entered
from netlab.probes import suspects


def settings(fd: int, devices: Iterable[str], version: int) -> suspects.Settings:
    """Sysctls, and the tables that hook ahead of the IP stack."""
    with entered(fd):
        read = {key: sysctls.read(key) for key in suspects.keys(devices, version)}
    early = [f"{family}/{table}" for family, table in rule_listing.nft_tables(fd) if family in suspects.EARLY]
    found = {key: value for key, value in read.items() if value is not None}
    return {**found, suspects.UNTRACED: " ".join(early)} if early else found


def original(row: Mapping[str, Any]) -> tuple[str, str, int, int]:
    """The addresses and ports of a conntrack entry's first packet."""
    if row["protocol"] in ("icmp", "icmpv6"):
        return row["src"], row["dst"], 0, 0
    return row["src"], row["dst"], row["sport"], row["dport"]
