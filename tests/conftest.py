"""What every test needs from its surroundings."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from tests.vm.plugin import pytest_addoption, pytest_collection_modifyitems, pytest_configure, pytest_runtest_protocol

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure", "pytest_runtest_protocol"]

# What a shell starts in the background ignores Ctrl-C, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _network_namespace() -> int:
    return Path("/proc/thread-self/ns/net").stat().st_ino


_CALLERS = _network_namespace()


def _no_packet_sockets_outside_labs(event: str, arguments: tuple[object, ...]) -> None:
    """No test may watch the machine's own links, or send there. scapy does, by ARP, for a MAC that it is not given."""
    if event == "socket.__new__" and arguments[1] == socket.AF_PACKET and _network_namespace() == _CALLERS:
        # No Exception: scapy goes on after those.
        pytest.fail("a packet socket in the machine's own network namespace: was scapy not given an address?")


sys.addaudithook(_no_packet_sockets_outside_labs)

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# An ordinary user's PATH has no sbin, where nft, iptables and their kin live.
os.environ["PATH"] = ":".join(dict.fromkeys([*os.environ.get("PATH", "/usr/bin:/bin").split(":"), *SBIN]))
