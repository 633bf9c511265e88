"""`deploy/NAME` and `svc/NS/NAME` as scenario steps name objects. Decides nothing about whether they exist."""

from dataclasses import dataclass
from urllib.parse import quote

from netlab.errors import InputError
from netlab.manifest import kinds


@dataclass(frozen=True, slots=True)
class Named:
    """One object; `namespace` is '' for those that live in none."""

    kind: kinds.KindInfo
    namespace: str
    name: str

    @property
    def path(self) -> str:
        """Its path in the API."""
        version = self.kind.api_version
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        space = f"/namespaces/{quote(self.namespace, safe='')}" if self.namespace else ""
        return f"{root}{space}/{self.kind.plural}/{quote(self.name, safe='')}"


def named(text: str, namespace: str) -> Named:
    """Raises: InputError where the text is no KIND/NAME or the kind is unknown."""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InputError(f"{text!r}: expected KIND/NAME or KIND/NAMESPACE/NAME, such as deploy/web")
    info = kinds.find(parts[0])
    space = parts[1] if len(parts) == 3 else namespace
    return Named(info, space if info.namespaced else "", parts[-1])
