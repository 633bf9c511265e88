"""What every test needs from its surroundings."""

import os
import signal

from tests.vm.plugin import pytest_addoption, pytest_collection_modifyitems, pytest_configure, pytest_runtest_protocol

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure", "pytest_runtest_protocol"]

# What a shell starts in the background ignores Ctrl-C, and so would every program that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# An ordinary user's PATH has no sbin, where nft, iptables and their kin live.
os.environ["PATH"] = ":".join(dict.fromkeys([*os.environ.get("PATH", "/usr/bin:/bin").split(":"), *SBIN]))
