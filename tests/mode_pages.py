"""The rules that docs/mode-iptables.md and docs/mode-nftables.md show and explain: those of a node of a real lab.

A page names what stands in each of its blocks: `<!-- rules: nat KUBE-SERVICES KUBE-NODEPORTS -->` (a table and its chains, as
iptables-save prints them) or `<!-- rules: map service-ips, chain services -->` (as nft lists them). `python -m tests.mode_pages`,
or `make golden`, fills the blocks anew; tests/live/test_mode_pages.py compares, and asks that nothing of the node be left out.
"""

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import netlab

ROOT = Path(__file__).parents[1]
TOPOLOGY, MANIFEST, NODE = ROOT / "topologies/plain.yaml", ROOT / "manifests/shop.yaml", "node/node-170"
PAGES = {mode: ROOT / f"docs/mode-{mode}.md" for mode in ("iptables", "nftables")}
_BLOCK = re.compile(r"<!-- rules: (?P<names>[^>]*) -->\n```\n(?P<text>.*?)```\n", re.DOTALL)


def rules(mode: str) -> Mapping[str, str]:
    """What the node has, from its kernel: `nat KUBE-SERVICES` or `chain services` -> its text. Empty chains are left out."""
    with netlab.up(TOPOLOGY, manifests=[MANIFEST], proxy=mode) as lab:
        if mode == "iptables":
            return _chains(lab.exec(NODE, ["iptables-save"], check=True).stdout.splitlines())
        return _objects(lab.exec(NODE, ["nft", "list", "table", "ip", "kube-proxy"], check=True).stdout)


def _chains(lines: Iterable[str]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("-A "):
            name = f"{table} {line.split()[1]}"
            found[name] = found.get(name, "") + line + "\n"
    return found


def _objects(listing: str) -> Mapping[str, str]:
    found = re.findall(r"^\t((?:set|map|chain) \S+) \{\n(.*?)^\t\}$", listing, re.DOTALL | re.MULTILINE)
    return {name: re.sub(r"^\t", "", f"\t{name} {{\n{body}\t}}\n", flags=re.MULTILINE) for name, body in found}


def names_of(block: str) -> list[str]:
    """What a block's comment asks for."""
    if block.startswith(("nat ", "filter ")):
        table, *chains = block.split()
        return [f"{table} {chain}" for chain in chains]
    return [name.strip() for name in block.split(",")]


def shown(page: str) -> list[tuple[list[str], str]]:
    """Every block of a page: what it promises to show, and what it shows."""
    return [(names_of(found["names"]), found["text"]) for found in _BLOCK.finditer(page)]


def filled(page: str, there: Mapping[str, str]) -> str:
    """The page with what there is in its blocks. Raises: KeyError for a name that the node does not have."""

    def fill(found: re.Match[str]) -> str:
        text = "".join(there[name] for name in names_of(found["names"]))
        return f"<!-- rules: {found['names']} -->\n```\n{text}```\n"

    return _BLOCK.sub(fill, page)


def main() -> int:
    for mode, page in PAGES.items():
        page.write_text(filled(page.read_text(), rules(mode)))
        print(f"{page.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
