"""What the built-in responder answers, as bytes in and bytes out: HTTP for every image, RESP for redis, datagram commands.

Decides what a request means and what the answer says. Refuses to know sockets, time and namespaces: the responder feeds it
bytes and carries its answers. The paths and their parameters are those of the Kubernetes e2e image `agnhost netexec`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qsl, unquote

from netlab.numerals import natural

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 1024 * 1024
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
_REQUEST_LINE = re.compile(rb"([!#-'*+\-.0-9A-Z^-z|~]{1,32}) (\S+) HTTP/(\d)\.(\d)")
_NGINX = (
    "<!DOCTYPE html>\n<html>\n<head><title>Welcome to nginx!</title></head>\n<body>\n<h1>Welcome to nginx!</h1>\n"
    "<p>This page comes from netlab's built-in responder.</p>\n</body>\n</html>\n"
)


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What the responder knows of the pod it answers for. `hosts` are names that /dial may use, beside addresses."""

    name: str
    namespace: str = "default"
    hosts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, its body already taken off the stream."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Dial:
    """/dial: requests to be made from inside the pod before the answer is known."""

    host: str
    port: int
    request: str
    protocol: Literal["http", "udp", "sctp"]
    tries: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response. `text` is sent as it is."""

    text: str
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


class Malformed(Exception):
    """Not HTTP, or more of it than is accepted; `status` is what an HTTP client is told before the connection is closed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def take_request(buffer: bytearray) -> Request | Literal["continue"] | None:
    """Takes one whole request off the front of `buffer`, body included and discarded.

    None: more bytes are needed. "continue": the head is there and the client waits for 100 Continue. Raises Malformed.
    """
    while buffer[:2] == b"\r\n":  # RFC 9112 2.2: an empty line before a request is skipped
        del buffer[:2]
    end = buffer.find(b"\r\n\r\n")
    skip = 4
    if end < 0:
        end, skip = buffer.find(b"\n\n"), 2
    if end < 0:
        _check_partial(buffer)
        return None
    head = bytes(buffer[:end])
    lines = head.replace(b"\r\n", b"\n").split(b"\n")
    matched = _REQUEST_LINE.fullmatch(lines[0])
    if not matched:
        raise Malformed(400, "malformed request line")
    if matched[3] != b"1":
        raise Malformed(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    headers = _headers(lines[1:])
    length = _body_length(buffer, end + skip, headers)
    if length is None:
        return "continue" if headers.get("expect", "").lower() == "100-continue" else None
    del buffer[: end + skip + length]
    target = matched[2].decode("latin-1")
    path, _, query = target.partition("?")
    if "://" in path:  # absolute form, as sent to proxies
        path = "/" + path.split("://", 1)[1].partition("/")[2]
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection if matched[4] != b"0" else "keep-alive" in connection
    return Request(matched[1].decode(), unquote(path), dict(parse_qsl(query, keep_blank_values=True)), headers, keep_alive)


def _check_partial(buffer: bytearray) -> None:
    line, newline, _ = bytes(buffer[:4096]).partition(b"\n")
    if newline and not _REQUEST_LINE.fullmatch(line.rstrip(b"\r")):
        raise Malformed(400, "malformed request line")
    if len(buffer) > MAX_HEAD_BYTES or (not newline and len(buffer) >= 4096 and not line[:1].isalpha()):
        raise Malformed(431, "request head too large")


def _headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or not name or name != name.strip():
            raise Malformed(400, "malformed header line")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _body_length(buffer: bytearray, start: int, headers: Mapping[str, str]) -> int | None:
    """Bytes that the body takes in `buffer` from `start` on; None while it is not all there."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return _chunked_length(buffer, start)
    length = natural(headers.get("content-length", "0"))
    if length is None:
        raise Malformed(400, "malformed Content-Length")
    if length > MAX_BODY_BYTES:
        raise Malformed(413, "body too large")
    return length if len(buffer) - start >= length else None


def _chunked_length(buffer: bytearray, start: int) -> int | None:
    position = start
    while True:
        if position - start > MAX_BODY_BYTES:
            raise Malformed(413, "body too large")
        end = buffer.find(b"\r\n", position, position + 64)
        if end < 0:
            if len(buffer) - position >= 64:
                raise Malformed(400, "malformed chunk")
            return None
        size_text = bytes(buffer[position:end]).split(b";")[0].strip(b" \t")
        if not _CHUNK_SIZE.fullmatch(size_text):  # `int` would take a negative one, and the search would never end
            raise Malformed(400, "malformed chunk")
        size = int(size_text, 16)
        if size == 0:
            trailer = buffer.find(b"\r\n\r\n", end)
            return None if trailer < 0 else trailer + 4 - start
        position = end + 2 + size + 2


def http_answer(request: Request, persona: str, pod: PodFacts, client: tuple[str, int]) -> Answer | Dial:
    """What the pod answers to `request`, by the image's base name `persona`; a Dial where that is still to be found out."""
    query = request.query
    match request.path:
        case "/hostname" | "/hostName":
            return Answer(pod.name)
        case "/clientip":
            return Answer(host_port(*client))
        case "/header":
            return Answer(request.headers.get(query.get("key", "").lower(), ""))
        case "/echo":
            return _echo(query)
        case "/healthz":
            return Answer("")
        case "/dial":
            return _dial(query)
        case "/" | "/index.html" if persona == "nginx":
            return Answer(_NGINX, content_type="text/html", headers=(("X-Pod", pod.name),))
        case _ if persona == "kubia":
            return Answer(f"You've hit {pod.name}\n")
        case "/":
            return Answer(f"{pod.name}\n")
        case _:
            return Answer("404 page not found\n", 404)


def host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _echo(query: Mapping[str, str]) -> Answer:
    code = query.get("code") or "200"
    number = natural(code)
    if number is None or not 200 <= number <= 599:
        return Answer(f"argument 'code' must be an integer from 200 to 599, got {code!r}\n", 400)
    return Answer(query.get("msg", ""), number)


def _dial(query: Mapping[str, str]) -> Dial | Answer:
    host, port, request = query.get("host", ""), natural(query.get("port", "")), query.get("request", "")
    protocol, tries = query.get("protocol", "").lower() or "http", natural(query.get("tries") or "1")
    if tries is None or tries > 9999:
        return Answer("tries parameter is invalid: a number from 0 to 9999 is needed\n", 400)
    if not request:
        return Answer("request parameter not specified\n", 400)
    if not host or port is None or not 0 < port < 65536:
        return Answer("host and/or port param are invalid\n", 400)
    match protocol:
        case "http" | "udp" | "sctp":
            return Dial(host, port, request, protocol, tries)
        case _:
            return Answer(f"unsupported protocol: {protocol}\n", 400)


def http_bytes(answer: Answer, pod: PodFacts | None, head_only: bool = False, close: bool = False) -> bytes:
    """The answer on the wire, which names its pod in X-Netlab-Pod; `pod` None: no pod answers, but the Service proxy."""
    body = answer.text.encode()
    try:
        reason = HTTPStatus(answer.status).phrase
    except ValueError:
        reason = "Status"
    lines = [f"HTTP/1.1 {answer.status} {reason}"]
    if answer.status not in (204, 304):
        lines += [f"Content-Type: {answer.content_type}", f"Content-Length: {len(body)}"]
    named = (("X-Netlab-Pod", pod.name),) if pod is not None else ()
    lines += [f"{name}: {value}" for name, value in (*answer.headers, *named)]
    if close:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    return head if head_only or answer.status in (204, 304) else head + body


def datagram_answer(data: bytes, pod: PodFacts, client: tuple[str, int]) -> bytes:
    """The reply to one UDP datagram or SCTP message."""
    command = data.strip()
    if command.lower() == b"hostname":
        return pod.name.encode()
    if command.lower() == b"clientip":
        return host_port(*client).encode()
    if command[:5].lower() == b"echo ":
        return data.lstrip()[5:]
    return pod.name.encode() + b": " + data


def take_command(buffer: bytearray) -> list[bytes] | None:
    """Takes one redis command off the front of `buffer`: an array of bulk strings, or an inline line.

    None: more bytes are needed. Raises Malformed.
    """
    line_end = buffer.find(b"\n")
    if line_end < 0:
        if len(buffer) > MAX_HEAD_BYTES:
            raise Malformed(400, "Protocol error: too big inline request")
        return None
    line = bytes(buffer[:line_end]).rstrip(b"\r")
    if not line.startswith(b"*"):
        del buffer[: line_end + 1]
        return line.split()
    count, position, words = _count(line[1:], 1024), line_end + 1, []
    for _ in range(count):
        end = buffer.find(b"\r\n", position, position + 32)
        if end < 0:
            if len(buffer) - position >= 32:
                raise Malformed(400, "Protocol error: invalid bulk length")
            return None
        if buffer[position : position + 1] != b"$":
            raise Malformed(400, "Protocol error: expected '$'")
        length = _count(bytes(buffer[position + 1 : end]), 1 << 20)
        if len(buffer) < end + 2 + length + 2:
            return None
        words.append(bytes(buffer[end + 2 : end + 2 + length]))
        position = end + 2 + length + 2
    del buffer[:position]
    return words


def _count(text: bytes, limit: int) -> int:
    if not text.isdigit() or len(text) > 9 or int(text) > limit:
        raise Malformed(400, "Protocol error: invalid multibulk length")
    return int(text)


def redis_answer(words: list[bytes], store: dict[bytes, bytes], pod: PodFacts) -> bytes:
    """The reply to one redis command; `store` is the pod's memory (at most 10,000 keys) and is changed by SET and DEL."""
    name = words[0].upper() if words else b""
    match name, words[1:]:
        case b"", _:
            return b""
        case b"PING", []:
            return b"+PONG\r\n"
        case ((b"PING" | b"ECHO"), [text]):
            return _bulk(text)
        case b"SET", [key, value, *_]:
            if len(store) >= 10_000 and key not in store:
                return b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
            store[key] = value
            return b"+OK\r\n"
        case b"GET", [key]:
            return _bulk(store[key]) if key in store else b"$-1\r\n"
        case b"DEL", [_, *_]:
            return b":%d\r\n" % sum(store.pop(key, None) is not None for key in set(words[1:]))
        case b"INFO", _:
            return _bulk(f"# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nhostname:{pod.name}\r\n".encode())
        case ((b"COMMAND" | b"CONFIG"), _):
            return b"*0\r\n"
        case ((b"SELECT" | b"CLIENT" | b"AUTH" | b"QUIT"), _):
            return b"+OK\r\n"
        case _:
            return b"-ERR unknown command '%s'\r\n" % name[:64].replace(b"\r", b" ").replace(b"\n", b" ")


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)
