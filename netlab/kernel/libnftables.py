"""libnftables.so.1 through ctypes: one context, bound to the namespace in which it was made. See libnftables(3).

Debian's Python binding is not on PyPI, and starting `nft` costs 2 ms where this costs 0.1. Refuses to know rules.
"""

import ctypes
from functools import cache

from netlab.errors import MachineError

_LIBRARY = "libnftables.so.1"
_STATELESS = 1 << 2


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
        function = getattr(library, name)
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_free", "nft_ctx_buffer_error", "nft_ctx_buffer_output"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def available() -> bool:
    """Whether this machine has the library."""
    return _library() is not None


class Nftables:
    """A context. Make it inside the namespace that it is for; it may then be used from anywhere."""

    def __init__(self) -> None:
        library = _library()
        if library is None:
            raise MachineError(f"{_LIBRARY} is missing: apt install libnftables1 nftables")
        self._library = library
        self._context: int | None = library.nft_ctx_new(0)
        if not self._context:
            raise MachineError("libnftables gives no context")
        library.nft_ctx_buffer_error(self._context)
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_output_set_flags(self._context, _STATELESS)

    def run(self, text: str) -> tuple[str, str]:
        """Run commands as one transaction; (error, output), error '' when it was done."""
        assert self._context, "this context is closed"
        failed = self._library.nft_run_cmd_from_buffer(self._context, text.encode())
        error = (self._library.nft_ctx_get_error_buffer(self._context) or b"").decode(errors="replace")
        output = (self._library.nft_ctx_get_output_buffer(self._context) or b"").decode(errors="replace")
        return (error or "it failed without a word") if failed else "", output

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None
