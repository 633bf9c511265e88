"""One HTTP request to a lab over its Unix socket."""

import http.client
import os
import socket
from collections.abc import Mapping
from pathlib import Path


def exchange(
    directory: Path, method: str, path: str, body: str | None, headers: Mapping[str, str], timeout_s: float | None = None
) -> tuple[int, bytes]:
    """(status, body) of the answer. Raises OSError when the lab is not there or breaks off."""
    connection = _Connection(directory, timeout_s)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"the answer broke off: {error!r}") from None
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    """HTTP over the lab's Unix socket, reached through a descriptor: a Unix socket's path holds only 107 bytes."""

    def __init__(self, directory: Path, timeout_s: float | None) -> None:
        super().__init__("netlab")
        self._timeout_s = timeout_s
        self._directory = directory

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._timeout_s)
        fd = os.open(self._directory, os.O_PATH | os.O_DIRECTORY)
        try:
            self.sock.connect(f"/proc/self/fd/{fd}/api")
        finally:
            os.close(fd)
