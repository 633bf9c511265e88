"""Kinds that netlab does not know are kept, shown and deleted by the names that their manifests use."""

from pathlib import Path

import pytest

import netlab
from netlab.errors import NetlabError

FOO = """
apiVersion: example.com/v1
kind: Foo
metadata: {name: mine}
spec: {anything: [1, 2]}
"""


def test_a_custom_resource_is_kept_shown_and_deleted(tmp_path: Path) -> None:
    manifest = tmp_path / "foo.yaml"
    manifest.write_text(FOO)
    with netlab.up(manifests=[manifest]) as lab:
        assert lab.get("foo", "mine")[0]["spec"] == {"anything": [1, 2]}
        assert [one["metadata"]["name"] for one in lab.get("foos")] == ["mine"]
        lab.delete("Foo", "mine")
        with pytest.raises(NetlabError):
            lab.get("foo", "mine")
