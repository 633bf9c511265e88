"""What every test needs from its surroundings."""

import os

SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# An ordinary user's PATH has no sbin, where nft, iptables and their kin live.
os.environ["PATH"] = ":".join(dict.fromkeys([*os.environ.get("PATH", "/usr/bin:/bin").split(":"), *SBIN]))
