"""What a cgroup's files say about kills for want of memory."""

from pathlib import Path

import pytest

from netlab.kernel.cgroups import Cgroup, own

EVENTS = {
    "version 2": ("low 0\nhigh 0\nmax 148\noom 2\noom_kill 2\noom_group_kill 0\n", "20971520\n", 2, ", which may use 20 MiB"),
    "version 1": ("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", "9223372036854771712\n", 1, ""),
    "no limit": ("oom_kill 0\n", "max\n", 0, ""),
    "no such files": (None, None, 0, ""),
}


@pytest.mark.parametrize("name", EVENTS)
def test_kills_and_limits_are_read(name: str, tmp_path: Path) -> None:
    events, limit, kills, words = EVENTS[name]
    for file, text in (("events", events), ("limit", limit)):
        if text is not None:
            (tmp_path / file).write_text(text)
    group = Cgroup("/x", str(tmp_path / "events"), str(tmp_path / "limit"))
    assert (group.kills(), group.allowance()) == (kills, words)


def test_every_machine_has_an_answer() -> None:
    assert own().path.startswith("/") and own().kills() >= 0
