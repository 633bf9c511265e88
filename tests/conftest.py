"""What every test needs from its surroundings."""

import os

from tests.vm.plugin import pytest_addoption, pytest_collection_modifyitems, pytest_configure, pytest_runtest_protocol

__all__ = ["pytest_addoption", "pytest_collection_modifyitems", "pytest_configure", "pytest_runtest_protocol"]

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# An ordinary user's PATH has no sbin, where nft, iptables and their kin live.
os.environ["PATH"] = ":".join(dict.fromkeys([*os.environ.get("PATH", "/usr/bin:/bin").split(":"), *SBIN]))
