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


class Stream:
    """The body of an answer without an end. Nothing waits in a buffer behind the descriptor: it may be polled."""

    def __init__(self, sock: socket.socket, path: str) -> None:
        import h11

        self._h11, self._sock, self._connection = h11, sock, h11.Connection(h11.CLIENT)
        request = h11.Request(method="GET", target=path, headers=[("Host", "netlab")])
        sock.sendall((self._connection.send(request) or b"") + (self._connection.send(h11.EndOfMessage()) or b""))

    def fileno(self) -> int:
        return self._sock.fileno()

    def read(self) -> bytes | None:
        """What has come, b"" when that was not a whole piece yet; None at the end. Waits for something. Raises OSError."""
        data = self._sock.recv(1 << 20)
        if not data:
            return None
        self._connection.receive_data(data)
        body = bytearray()
        while True:
            match self._connection.next_event():
                case self._h11.Response(status_code=status) if status != 200:
                    raise ConnectionError(f"the lab answered {status}")
                case self._h11.Data(data=part):
                    body += part
                case self._h11.EndOfMessage() | self._h11.ConnectionClosed():
                    return bytes(body) or None
                case self._h11.NEED_DATA | self._h11.PAUSED:
                    return bytes(body)
                case _:
                    pass

    def close(self) -> None:
        self._sock.close()


def stream(directory: Path, path: str) -> Stream:
    """GET what is answered bit by bit. Raises OSError as `exchange` does."""
    return Stream(connected(directory), path)


class _Connection(http.client.HTTPConnection):
    """HTTP over the lab's Unix socket, reached through a descriptor: a Unix socket's path holds only 107 bytes."""

    def __init__(self, directory: Path, timeout_s: float | None) -> None:
        super().__init__("netlab")
        self._timeout_s = timeout_s
        self._directory = directory

    def connect(self) -> None:
        self.sock = connected(self._directory, self._timeout_s)


def connected(directory: Path, timeout_s: float | None = None) -> socket.socket:
    """A connection to the lab's API. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    fd = -1
    try:
        fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        sock.connect(f"/proc/self/fd/{fd}/api")
    except BaseException:
        sock.close()
        raise
    finally:
        if fd >= 0:
            os.close(fd)
    return sock
