"""The floor of a change in legacy iptables: the kernel hands its table out once and takes it back once, whatever changes in it.

Whoever changes a rule must do both (libiptc does): there is no way to change a part. Here nothing else is done, no text is read
and no rule compiled. Sources: linux/netfilter_ipv4/ip_tables.h, net/ipv4/netfilter/ip_tables.c.
"""

import ctypes
import os
import socket
import struct

_GET_INFO, _GET_ENTRIES, _SET_REPLACE = 64, 65, 64
_NAME = b"nat".ljust(32, b"\0")
_INFO = struct.Struct("32s11I2I")
"""struct ipt_getinfo: name; valid hooks, an offset and an underflow for each of five; how many entries, and bytes of them."""
_ENTRIES = struct.Struct("32sI4x")
_REPLACE = struct.Struct("32s3I10IIQ")
_COUNTER_BYTES = 16


def replace_with_itself() -> None:
    """Read table nat of the namespace that this thread is in, and put the very same table there. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:

        def get(option: int, buffer: ctypes.Array[ctypes.c_char], start: int = 0) -> None:
            length = ctypes.c_uint32(len(buffer) - start)
            if libc.getsockopt(sock.fileno(), socket.SOL_IP, option, ctypes.byref(buffer, start), ctypes.byref(length)):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

        info = ctypes.create_string_buffer(_NAME, _INFO.size)
        get(_GET_INFO, info)
        _, hooks, *offsets, count, size = _INFO.unpack(info)
        # The entries are read to where they will be sent from: behind the longer head of the request that replaces them.
        table, before = ctypes.create_string_buffer(_REPLACE.size + size), _REPLACE.size - _ENTRIES.size
        _ENTRIES.pack_into(table, before, _NAME, size)
        get(_GET_ENTRIES, table, before)
        counters = ctypes.create_string_buffer(_COUNTER_BYTES * count)  # the kernel puts those of the old table there
        _REPLACE.pack_into(table, 0, _NAME, hooks, count, size, *offsets, count, ctypes.addressof(counters))
        sock.setsockopt(socket.SOL_IP, _SET_REPLACE, table)
