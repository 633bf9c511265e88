"""The pages of the modes iptables and nftables show a real node's rules: all of them, and no others."""

from collections.abc import Mapping

import pytest

from tests.mode_pages import PAGES, rules, shown

REPEATED = ("nat KUBE-SEP-", "nat KUBE-SVC-NPX46M4PTMTKRN6Y", "set affinity-", "chain endpoint-", "chain service-2QRHZV4L")
"""One of each kind is on the page."""


@pytest.mark.parametrize("mode", PAGES)
def test_the_page_shows_what_a_node_has(mode: str) -> None:
    there: Mapping[str, str] = rules(mode)
    blocks = shown(PAGES[mode].read_text())
    for names, text in blocks:
        assert text == "".join(there.get(name, f"no {name}\n") for name in names), f"`make golden` writes {PAGES[mode].name} anew"
    explained = {name for names, _ in blocks for name in names}
    assert {name for name in there if name not in explained and not name.startswith(REPEATED)} == set()
    for kind in REPEATED:
        if any(name.startswith(kind) for name in there):
            assert any(name.startswith(kind) for name in explained) or kind.endswith(("6Y", "4L"))
