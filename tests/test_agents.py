"""The end of an agent: what it held is free for the one that takes its place."""

import fcntl
import os
import signal
import socket

import pytest

from netlab.kernel import agent, keeping

OTHERS = 400
"""Sockets that are closed between the wire and the port, or after it: an agent has one for every port of every pod."""


def _listener(port: int = 0) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock


def _holding(sock: socket.socket) -> None:
    wire = socket.socket(fileno=fcntl.fcntl(sock, fcntl.F_DUPFD, 900))  # the kernel closes from the highest number down
    sock.close()
    before = [_listener() for _ in range(OTHERS)]
    held = _listener()
    after = [_listener() for _ in range(OTHERS)]
    methods = {"port": lambda: held.getsockname()[1], "others": lambda: len(before) + len(after)}
    agent.serve_forever(wire, methods)


def _gone(one: agent.Agent) -> bool:
    return not one.on_readable()


def test_the_ports_of_a_killed_agent_are_free_once_its_end_was_waited_for() -> None:
    """Its wire closes before its ports do: `Address already in use` ended the lab whose proxy process was killed."""
    for _ in range(5):
        one = agent.spawn("x", _holding)
        port = one.call("port", deadline_s=60)
        os.kill(one.pid, signal.SIGKILL)
        assert _gone(one)
        one.wait_for_end()
        _listener(port).close()
        one.sock.close()
        os.waitpid(one.pid, 0)


def test_an_agent_that_only_closes_its_wire_is_ended() -> None:
    def hanging(sock: socket.socket) -> None:
        sock.close()
        signal.pause()

    one = agent.spawn("x", hanging)
    assert _gone(one)
    one.wait_for_end()
    assert os.waitstatus_to_exitcode(os.waitpid(one.pid, 0)[1]) == -signal.SIGKILL
    one.wait_for_end()  # it was taken in already
    one.sock.close()


def test_a_program_that_ends_soon_again_is_started_again_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    kept = keeping.Keeping()
    delays = []
    for _ in range(8):
        kept.started()
        now += 0.5
        delays.append(kept.ended())
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    kept.started()
    now += 11
    assert kept.ended() == 0.0, "it had run well meanwhile"
    assert kept.restarts == 9
