"""What the built-in responder answers: bytes in, bytes out, without a socket."""

import pytest

from netlab.agents import answers
from netlab.agents.answers import Answer, Dial, Malformed, PodFacts
from netlab.agents.dialling import response_body

POD = PodFacts("kubia-x7k2p")
CLIENT = ("10.244.1.3", 40000)


def get(target: str, persona: str, extra: str = "") -> Answer | Dial:
    request = answers.take_request(bytearray(f"GET {target} HTTP/1.1\r\nHost: x\r\n{extra}\r\n".encode()))
    assert isinstance(request, answers.Request)
    return answers.http_answer(request, persona, POD, CLIENT)


@pytest.mark.parametrize(
    ("name", "persona", "target", "status", "text"),
    [
        ("kubia says whom it hit", "kubia", "/", 200, "You've hit kubia-x7k2p\n"),
        ("kubia answers every path", "kubia", "/anything", 200, "You've hit kubia-x7k2p\n"),
        ("nginx has no other page", "nginx", "/anything", 404, "404 page not found\n"),
        ("any other image names the pod", "agnhost", "/", 200, "kubia-x7k2p\n"),
        ("any other image has no other page", "agnhost", "/nothing", 404, "404 page not found\n"),
        ("hostname", "kubia", "/hostname", 200, "kubia-x7k2p"),
        ("hostName, the old spelling", "nginx", "/hostName", 200, "kubia-x7k2p"),
        ("clientip is address:port as seen", "agnhost", "/clientip", 200, "10.244.1.3:40000"),
        ("echo", "agnhost", "/echo?msg=hello%20world+x", 200, "hello world x"),
        ("echo with a status", "agnhost", "/echo?msg=no&code=503", 503, "no"),
        ("healthz", "agnhost", "/healthz", 200, ""),
        ("header that is there", "agnhost", "/header?key=X-Forwarded-For", 200, "1.2.3.4"),
        ("header that is not there", "agnhost", "/header?key=X-Real-Ip", 200, ""),
        ("absolute form", "agnhost", "http://svc/hostname", 200, "kubia-x7k2p"),
        ("dial without a request", "agnhost", "/dial?host=10.0.0.1&port=80", 400, "request parameter not specified\n"),
        ("dial to a bad port", "agnhost", "/dial?host=10.0.0.1&port=x&request=a", 400, "host and/or port param are invalid\n"),
    ],
)
def test_http_answers(name: str, persona: str, target: str, status: int, text: str) -> None:
    answer = get(target, persona, "X-Forwarded-For: 1.2.3.4\r\n")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.text) == (status, text)


def test_nginx_shows_its_page_and_names_the_pod_in_a_header() -> None:
    answer = get("/", "nginx")
    assert isinstance(answer, Answer)
    assert "Welcome to nginx!" in answer.text
    assert ("X-Pod", "kubia-x7k2p") in answer.headers


def test_dial_is_read() -> None:
    assert get("/dial?host=10.0.0.1&port=80&request=hostname&tries=3", "agnhost") == Dial("10.0.0.1", 80, "hostname", "http", 3)


@pytest.mark.parametrize(
    ("name", "data", "left"),
    [
        ("an unfinished head", b"GET / HTTP/1.1\r\nHost: x\r\n", None),
        ("a body that is not all there", b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", None),
        ("a chunked body that is not all there", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", None),
        ("two requests at once", b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n", b"GET /b HTTP/1.1\r\n\r\n"),
        ("a body", b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET", b"GET"),
        ("a chunked body", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET", b"GET"),
        ("bare line feeds", b"GET / HTTP/1.0\n\nrest", b"rest"),
    ],
)
def test_requests_are_taken_whole(name: str, data: bytes, left: bytes | None) -> None:
    buffer = bytearray(data)
    request = answers.take_request(buffer)
    assert (request is None) == (left is None)
    assert bytes(buffer) == (data if left is None else left)


@pytest.mark.parametrize(
    ("name", "data", "status"),
    [
        ("words", b"hello there\n", 400),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01" + b"\0" * 5000, 431),
        ("a negative length", b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        ("a huge length", b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        ("a bad chunk", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\n", 505),
        ("a head without end", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 20000, 431),
        ("a header without colon", b"GET / HTTP/1.1\r\nnonsense\r\n\r\n", 400),
    ],
)
def test_garbage_is_refused(name: str, data: bytes, status: int) -> None:
    with pytest.raises(Malformed) as caught:
        answers.take_request(bytearray(data))
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("name", "line", "keeps"),
    [
        ("HTTP/1.1", "GET / HTTP/1.1\r\n", True),
        ("HTTP/1.1 with close", "GET / HTTP/1.1\r\nConnection: close\r\n", False),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n", False),
        ("HTTP/1.0 with keep-alive", "GET / HTTP/1.0\r\nConnection: keep-alive\r\n", True),
    ],
)
def test_keep_alive(name: str, line: str, keeps: bool) -> None:
    request = answers.take_request(bytearray(line.encode() + b"\r\n"))
    assert isinstance(request, answers.Request)
    assert request.keep_alive is keeps


def test_head_has_the_length_and_no_body() -> None:
    full, head = answers.http_bytes(Answer("four"), POD), answers.http_bytes(Answer("four"), POD, head_only=True)
    assert full == head + b"four"
    assert b"Content-Length: 4\r\n" in head and b"X-Netlab-Pod: kubia-x7k2p\r\n" in head


@pytest.mark.parametrize(
    ("name", "data", "reply"),
    [
        ("hostname", b"hostname", b"kubia-x7k2p"),
        ("hostname with a newline", b"hostname\n", b"kubia-x7k2p"),
        ("clientip", b"clientip", b"10.244.1.3:40000"),
        ("echo", b"echo some text", b"some text"),
        ("anything else", b"\x00\xff", b"kubia-x7k2p: \x00\xff"),
        ("nothing", b"", b"kubia-x7k2p: "),
    ],
)
def test_datagrams(name: str, data: bytes, reply: bytes) -> None:
    assert answers.datagram_answer(data, POD, CLIENT) == reply


@pytest.mark.parametrize(
    ("name", "data", "reply"),
    [
        ("PING inline", b"PING\r\n", b"+PONG\r\n"),
        ("PING in RESP", b"*1\r\n$4\r\nping\r\n", b"+PONG\r\n"),
        ("PING with text", b"*2\r\n$4\r\nPING\r\n$2\r\nhi\r\n", b"$2\r\nhi\r\n"),
        ("GET of nothing", b"*2\r\n$3\r\nGET\r\n$1\r\nx\r\n", b"$-1\r\n"),
        ("GET of something", b"*2\r\n$3\r\nGET\r\n$4\r\nheld\r\n", b"$5\r\nvalue\r\n"),
        ("SET", b"SET a b\r\n", b"+OK\r\n"),
        ("DEL", b"DEL held held\r\n", b":1\r\n"),
        ("an unknown word", b"FLY me\r\n", b"-ERR unknown command 'FLY'\r\n"),
    ],
)
def test_redis(name: str, data: bytes, reply: bytes) -> None:
    words = answers.take_command(bytearray(data))
    assert words is not None
    assert answers.redis_answer(words, {b"held": b"value"}, POD) == reply


@pytest.mark.parametrize("data", [b"*1\r\n$4\r\nPI", b"*2\r\n$4\r\nPING\r\n", b"*1\r\n$4", b"PING"])
def test_redis_waits_for_the_rest(data: bytes) -> None:
    buffer = bytearray(data)
    assert answers.take_command(buffer) is None
    assert bytes(buffer) == data


@pytest.mark.parametrize("data", [b"*x\r\n", b"*99999999\r\n", b"*1\r\n:4\r\nPING\r\n", b"*1\r\n$x\r\nPING\r\n"])
def test_redis_refuses_garbage(data: bytes) -> None:
    with pytest.raises(Malformed):
        answers.take_command(bytearray(data))


@pytest.mark.parametrize(
    ("name", "data", "ended", "body"),
    [
        ("with a length", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", False, b"abc"),
        ("with a length, unfinished", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", True, None),
        ("chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", False, b"abc"),
        ("until the end", b"HTTP/1.0 200 OK\r\n\r\nabc", True, b"abc"),
        ("until the end, unfinished", b"HTTP/1.0 200 OK\r\n\r\nabc", False, None),
    ],
)
def test_response_bodies(name: str, data: bytes, ended: bool, body: bytes | None) -> None:
    assert response_body(data, ended) == body
