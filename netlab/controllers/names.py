"""Decides generated names, uids and template hashes; knows no cluster beyond the serial number it is given.

Kubernetes draws names at random. Here the n-th object that a lab makes gets the n-th member of a fixed permutation of all
five-letter suffixes: it looks the same, the same input always gives the same names, and no name comes twice in a lab.
"""

import hashlib
import json
from typing import Any
from zlib import crc32

ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""What Kubernetes uses: no vowels, and none of the digits that look like them, so that no word comes out."""

_SUFFIXES = len(ALPHABET) ** 5
_STEP = 8868112  # golden section of _SUFFIXES, not divisible by 3: steps through all of them, far from the last one


def suffix(serial: int) -> str:
    """Five letters for the object with this serial number; distinct for 14 million of them."""
    number = (serial + 1) * _STEP % _SUFFIXES
    letters = []
    for _ in range(5):
        number, letter = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[letter])
    return "".join(letters)


def generated(base: str, serial: int) -> str:
    """`BASE-xxxxx`; a base that is too long for a label is cut as the API server cuts generateName."""
    return f"{base[:57]}-{suffix(serial)}"


def uid(kind: str, namespace: str, name: str, serial: int) -> str:
    """A uid in the usual form; distinct for every serial number."""
    digest = hashlib.sha256(f"{kind}/{namespace}/{name}/{serial}".encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-a{digest[17:20]}-{digest[20:32]}"


def template_hash(template: Any) -> str:
    """pod-template-hash of a template in plain JSON types: equal templates, equal hashes."""
    text = json.dumps(template, sort_keys=True, default=str)
    return "".join(ALPHABET[ord(digit) % len(ALPHABET)] for digit in str(crc32(text.encode())))
