"""The scalar types of manifests: what each accepts, in the API server's rules, and its JSON Schema.

A format is a function from a value to an error message, '' when the value is right. Refuses to know where the value stands.
Over 400 lines: a list of some eighty short formats, read as one table.
"""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from ipaddress import ip_address, ip_network
from typing import Any

from netlab.numerals import natural

Format = Callable[[Any], str]

PROXY_VARIANTS = ("iptables", "ipvs", "nftables", "nftables-chains", "nftables-maps", "userspace", "all")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_PORT_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|us|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|s|m|h)")
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(bit|kbit|mbit|gbit)", re.IGNORECASE)
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}


def json_type(value: Any) -> str:
    """A value in words, for `must be ..., not ...`."""
    match value:
        case None:
            return "null"
        case bool():
            return f"the boolean {'true' if value else 'false'}"
        case int() | float():
            return f"the number {str(value)[:40]}"
        case str():
            return f'the string "{value[:40]}"'
        case dict() | Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


def string(value: Any) -> str:
    if type(value) is str:
        return ""
    if type(value) is bool:
        return f"must be a string, not {json_type(value)} (YAML reads yes, no, on and off as booleans too); put it in quotes"
    if isinstance(value, int | float):
        return f'must be a string, not {json_type(value)}; put it in quotes: "{str(value)[:40]}"'
    return f"must be a string, not {json_type(value)}"


def integer(value: Any) -> str:
    if type(value) is int or (type(value) is float and value.is_integer()):
        return "" if -(2**63) <= value < 2**63 else "is out of range"
    if type(value) is str and value.lstrip("-").isdigit() and len(value) < 20:
        return f"must be a whole number, not {json_type(value)}; leave the quotes out"
    return f"must be a whole number, not {json_type(value)}"


def count(value: Any) -> str:
    return integer(value) or ("" if value >= 0 else "must not be negative")


def positive(value: Any) -> str:
    return integer(value) or ("" if value >= 1 else "must be at least 1")


def int_or_percent(value: Any) -> str:
    """What maxSurge and maxUnavailable take."""
    if type(value) is str:
        percent = natural(value.removesuffix("%")) if value.endswith("%") else None
        return (
            ""
            if percent is not None and percent <= 100
            else f'must be a number of pods or a percentage such as 25%, not "{value[:40]}"'
        )
    return (
        count(value)
        if isinstance(value, int | float) and type(value) is not bool
        else f"must be a number or a percentage, not {json_type(value)}"
    )


def boolean(value: Any) -> str:
    if type(value) is bool:
        return ""
    hint = "; leave the quotes out" if value in ("true", "false", "yes", "no", "on", "off") else ""
    return f"must be true or false, not {json_type(value)}{hint}"


def port(value: Any) -> str:
    return integer(value) or ("" if 1 <= value <= 65535 else f"must be between 1 and 65535, not {int(value)}")


def node_port(value: Any) -> str:
    return integer(value) or (
        "" if value == 0 or 30000 <= value <= 32767 else f"{int(value)} is outside the range of node ports, 30000-32767"
    )


def port_name(value: Any) -> str:
    """An IANA service name: what a containerPort's name and a named targetPort must be."""
    if error := string(value):
        return error
    if len(value) > 15:
        return f'"{value[:40]}" is too long: a port name has at most 15 characters'
    if not _PORT_NAME.fullmatch(value) or not any(letter.isalpha() for letter in value):
        return f'"{value}" is no port name: lower case letters, digits and single dashes, at least one letter'
    return ""


def port_or_name(value: Any) -> str:
    if type(value) is str:
        if value.isdigit():
            return f'"{value[:40]}" in quotes is the name of a port, and a name needs a letter; leave the quotes out'
        return port_name(value)
    return port(value) if isinstance(value, int | float) else f"must be a port number or a port's name, not {json_type(value)}"


def label_or_empty(value: Any) -> str:
    return "" if value == "" else label_name(value)


def target_port(value: Any) -> str:
    """As a port or its name; 0 and '' say nothing, and stand for the Service's own port."""
    return "" if value in (0, "") and type(value) is not bool else port_or_name(value)


def label_name(value: Any) -> str:
    """DNS-1123 label: names of namespaces, containers, service ports."""
    return string(value) or _dns(
        value, _LABEL, 63, "lower case letters, digits and '-', beginning and ending with a letter or digit"
    )


def data_key(value: Any) -> str:
    """A key of a ConfigMap or Secret, which may become the name of a file."""
    if error := string(value):
        return error
    if not _DATA_KEY.fullmatch(value) or len(value) > 253 or value in (".", ".."):
        return f"\"{value[:60]}\" is no key: letters, digits, '-', '_' and '.', at most 253, and not \".\" or \"..\""
    return ""


def relative_path(value: Any) -> str:
    """A path inside a volume."""
    if error := string(value):
        return error
    if value.startswith("/") or ".." in value.split("/") or "\0" in value:
        return f'"{value[:60]}" is no path inside a volume: relative, and without ".."'
    return ""


def mount_path(value: Any) -> str:
    """Where a container sees a volume."""
    if error := string(value):
        return error
    if not value.startswith("/") or ".." in value.split("/") or "\0" in value or ":" in value:
        return f'"{value[:60]}" is no mount path: absolute, without ".." and ":"'
    return ""


def working_directory(value: Any) -> str:
    return string(value) or ("holds a zero byte, which no path can" if "\0" in value else "")


def variable_name(value: Any) -> str:
    """Name of an environment variable: what Kubernetes takes since 1.34, printable ASCII but '='."""
    if error := string(value):
        return error
    if not value or not value.isascii() or not value.isprintable() or "=" in value:
        return f'"{shown(value)}" is no name of a variable: printable ASCII characters without "="'
    return ""


def device(value: Any) -> str:
    """Name of a network interface, or how one begins; it becomes part of rules. '' is none."""
    if error := string(value):
        return error
    if value and not _DEVICE.fullmatch(value):
        rule = "at most 15 letters, digits, '_', '-' and '.', not beginning with '-' or '.'"
        return f'"{shown(value)}" is no name of an interface: {rule}'
    return ""


def line(value: Any) -> str:
    """One line of text."""
    return string(value) or (
        "" if value.isprintable() else f'"{shown(value)}" holds a control character: one line of text is wanted'
    )


def shown(value: str) -> str:
    """What was given, for a message on a terminal."""
    return "".join(one if one.isprintable() else "?" for one in value[:60])


def qualified_name(value: Any) -> str:
    """A key as labels and taints have it."""
    return string(value) or label_key(value)


def service_name(value: Any) -> str:
    """DNS-1035 label: names of Services."""
    return string(value) or _dns(
        value, _LABEL_1035, 63, "lower case letters, digits and '-', beginning with a letter, not ending with '-'"
    )


def object_name(value: Any) -> str:
    """DNS-1123 subdomain: names of most objects."""
    return string(value) or _dns(
        value, _SUBDOMAIN, 253, "lower case letters, digits, '-' and '.', each part beginning and ending with a letter or digit"
    )


def machine_name(value: Any) -> str:
    """A node or host of a topology: a hostname, which Linux limits to 63 characters."""
    return string(value) or _dns(
        value, _SUBDOMAIN, 63, "lower case letters, digits, '-' and '.', each part beginning and ending with a letter or digit"
    )


def _dns(value: str, pattern: re.Pattern[str], most: int, rule: str) -> str:
    if not value:
        return "must not be empty"
    if len(value) > most:
        return f'"{value[:40]}..." is too long: at most {most} characters'
    if pattern.fullmatch(value):
        return ""
    lower = value.lower().replace("_", "-")
    hint = f"; did you mean {lower}?" if pattern.fullmatch(lower) else ""
    return f'"{value[:80]}" is no valid name: {rule}{hint}'


def label_key(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if slash and (error := object_name(prefix)):
        return f"prefix {error}"
    if not name or len(name) > 63 or not _QUALIFIED.fullmatch(name):
        return f"\"{key[:80]}\" is no valid key: at most 63 letters, digits, '-', '_' and '.', optionally after \"prefix/\""
    return ""


def label_value(value: Any) -> str:
    if type(value) is str and (not value or (len(value) <= 63 and _QUALIFIED.fullmatch(value))):
        return ""
    return string(value) or f"\"{value[:80]}\" is no valid label value: at most 63 letters, digits, '-', '_' and '.'"


def ip(value: Any) -> str:
    if error := string(value):
        return error
    try:
        if "%" in value:
            raise ValueError
        ip_address(value)
    except ValueError:
        hint = "; leave the prefix length out" if "/" in value and not network(value) else ""
        return f'"{value[:60]}" is no IP address{hint}'
    return ""


def ip_or_empty(value: Any) -> str:
    return "" if value == "" else ip(value)


def cluster_ip(value: Any) -> str:
    if value in ("", "None"):
        return ""
    hint = "; did you mean None?" if str(value).lower() == "none" else "; an address, None (headless) or nothing is wanted"
    return (error := ip(value)) and error + hint


def endpoint_ip(value: Any) -> str:
    """What the API server accepts as an endpoint or external address: nothing that only has a meaning on one machine."""
    if error := ip(value):
        return error
    address = ip_address(value)
    if address.is_loopback or address.is_unspecified or address.is_link_local or address.is_multicast:
        return f"{value} is a loopback, link-local, multicast or unspecified address, which cannot be reached from elsewhere"
    return ""


def network(value: Any) -> str:
    """A CIDR; host bits may be set, as the API server allows in load balancer source ranges."""
    if error := string(value):
        return error
    try:
        if "/" not in value or not value.strip().rpartition("/")[2].isdigit() or "%" in value:
            raise ValueError
        ip_network(value.strip(), strict=False)
    except ValueError:
        return f'"{value[:60]}" is no CIDR; something like 10.244.0.0/16 is wanted'
    return ""


def strict_network(value: Any) -> str:
    if error := network(value):
        return error
    try:
        ip_network(value.strip())
    except ValueError:
        return f"{value} has host bits set; did you mean {ip_network(value.strip(), strict=False)}?"
    return ""


def networks(value: Any) -> str:
    """One CIDR, or one a family, as a list or with a comma."""
    items = value.split(",") if type(value) is str else value
    if type(items) is not list or not items:
        return f"must be a CIDR, or a list with one for each family, not {json_type(value)}"
    for item in items:
        if error := strict_network(item):
            return error
    versions = [ip_network(item.strip()).version for item in items]
    return "" if len(set(versions)) == len(versions) else "holds two CIDRs of the same family; one for each is wanted"


def duration(value: Any) -> str:
    if isinstance(value, int | float) and type(value) is not bool:
        return "" if 0 <= value < 10**9 else "is out of range"
    if type(value) is str and len(value) < 40 and _DURATION.fullmatch(value):
        return ""
    return f"must be a time like 5s, 200ms or 1m30s, not {json_type(value)}"


def period(value: Any) -> str:
    """A duration in which something can happen."""
    return duration(value) or ("" if seconds(value) > 0 else "must be more than nothing")


def rate(value: Any) -> str:
    return (
        ""
        if type(value) is str and len(value) < 40 and _RATE.fullmatch(value)
        else f"must be a rate like 100mbit, not {json_type(value)}"
    )


def percent(value: Any) -> str:
    if type(value) is str and len(value) < 40 and (found := _PERCENT.fullmatch(value)) and float(found[1]) <= 100:
        return ""
    return f"must be a share like 1% or 0.5%, not {json_type(value)}"


def pool(value: Any) -> str:
    """Ranges of addresses: CIDRs and FIRST-LAST, one or a list."""
    items = value if type(value) is list and value else [value]
    for item in items:
        first, dash, last = str(item).partition("-")
        if type(item) is not str or not (dash or "/" in item):
            return f"must be a CIDR or a range like 192.168.0.240-192.168.0.250, or a list of them, not {json_type(item)}"
        if error := strict_network(item) if not dash else ip(first.strip()) or ip(last.strip()):
            return error
        if dash:
            low, high = ip_address(first.strip()), ip_address(last.strip())
            if low.version != high.version or int(low) > int(high):
                return f'"{item[:80]}" is no range: its first address must not be above its last, and of the same family'
    return ""


def forward(value: Any) -> str:
    """Where a router's port leads: ADDRESS or ADDRESS:PORT, IPv6 as [ADDRESS]:PORT."""
    if error := string(value):
        return error
    address, number = split_forward(value)
    if error := ip(address):
        return f"{error}; an address is wanted, or ADDRESS:PORT"
    return "" if number is None or 1 <= number <= 65535 else f"{number} is no port number"


def split_forward(value: str) -> tuple[str, int | None]:
    """Address and port (None: not given) of what `forward` accepts."""
    bare, colon, text = value.rpartition(":")
    number = natural(text)
    if colon and number is not None and (bare.count(":") == 0 or bare.endswith("]")):
        return bare.strip("[]"), number
    return value.strip("[]"), None


def router(value: Any) -> str:
    """An address, one a family as a list, or the word none."""
    if value == "none":
        return ""
    items = value if type(value) is list and value else [value]
    for item in items:
        if error := ip(item):
            return f"{error}; an address or none is wanted"
    versions = [ip_address(item).version for item in items]
    return "" if len(set(versions)) == len(versions) else "holds two addresses of the same family; one for each is wanted"


def addresses(value: Any) -> str:
    """One address or a list of them."""
    values = [value] if type(value) is str else value
    if type(values) is not list or not values:
        return f"must be an address or a list of addresses, not {json_type(value)}"
    for item in values:
        if error := ip(item):
            return error
    return ""


def node_port_addresses(value: Any) -> str:
    """kube-proxy's nodePortAddresses: CIDRs, or the word primary alone."""
    values = [value] if type(value) is str else value
    if type(values) is not list:
        return f"must be a list of CIDRs, or primary, not {json_type(value)}"
    if values == ["primary"]:
        return ""
    for item in values:
        if error := strict_network(item):
            return f"{error}; CIDRs are wanted, or primary alone"
    return ""


def modes(value: Any) -> str:
    """Proxy modes of a scenario: one, a list, or all."""
    values = [value] if type(value) is str else value
    if type(values) is not list or not values:
        return f"must be a proxy mode, a list of them, or all, not {json_type(value)}"
    for item in values:
        if item not in PROXY_VARIANTS:
            known = ", ".join(PROXY_VARIANTS[:-1])
            return f"{json_type(item).removeprefix('the string ')} is no proxy mode: {known} or {PROXY_VARIANTS[-1]}"
    return ""


def names(value: Any) -> str:
    """A word or a list of words."""
    values = [value] if type(value) is str else value
    if type(values) is not list or any(type(item) is not str for item in values):
        return f"must be a name or a list of names, not {json_type(value)}"
    return ""


def count_or_names(value: Any) -> str:
    """How many, or which."""
    if type(value) in (str, list):
        return names(value)
    return count(value) and f"must be a number or a list of names, not {json_type(value)}"


def ingress(value: Any) -> str:
    """`haproxy`, or `{proxy: haproxy, upstream: service}`."""
    given = value if isinstance(value, dict) else {"proxy": value}
    for key, one in given.items():
        if key not in _INGRESS:
            return f"unknown field {key}; known are {', '.join(_INGRESS)}"
        if one not in _INGRESS[key]:
            meant = get_close_matches(str(one), _INGRESS[key], n=1)
            return f'"{one}" is not one of {", ".join(_INGRESS[key])}' + (f"; did you mean {meant[0]}?" if meant else "")
    return ""


_INGRESS: Mapping[str, tuple[str, ...]] = {"proxy": ("haproxy", "nginx", "traefik"), "upstream": ("endpoints", "service")}


def count_or_most(value: Any) -> str:
    """`3`, or `{max: 3}`."""
    if isinstance(value, dict):
        return count(value["max"]) if set(value) == {"max"} else "must be a number, or {max: N}"
    return count(value)


def nullable(value: Any) -> str:
    """A label's new value; null takes the label away."""
    return "" if value is None else label_value(value)


def seconds(value: Any) -> float:
    """A duration that `duration` accepts, in seconds."""
    if isinstance(value, int | float):
        return float(value)
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(value))


def bits(value: str) -> int:
    """A rate that `rate` accepts, in bits per second."""
    found = _RATE.fullmatch(value)
    assert found is not None
    return int(float(found[1]) * _BITS[found[2].lower()])


def share(value: str) -> float:
    """A percentage that `percent` accepts, as a share of 1."""
    found = _PERCENT.fullmatch(value)
    assert found is not None
    return float(found[1]) / 100


def anything(value: Any) -> str:
    return ""


def mapping(value: Any) -> str:
    return "" if isinstance(value, dict) else f"must be a mapping, not {json_type(value)}"


def sequence(value: Any) -> str:
    return "" if isinstance(value, list) else f"must be a list, not {json_type(value)}"


_COUNT: Mapping[str, Any] = {"type": "integer", "minimum": 0}
_STRING = {"type": "string"}
_STRINGS = {"type": ["string", "array"], "items": {"type": "string"}}
_NUMBER_OR_STRING = {"type": ["number", "string"]}

FORMATS: Mapping[str, tuple[Format, Mapping[str, Any]]] = {
    "string": (string, _STRING),
    "int": (integer, {"type": "integer"}),
    "count": (count, {"type": "integer", "minimum": 0}),
    "positive": (positive, {"type": "integer", "minimum": 1}),
    "intOrPercent": (int_or_percent, {"type": ["integer", "string"]}),
    "bool": (boolean, {"type": "boolean"}),
    "any": (anything, {}),
    "object": (mapping, {"type": "object"}),
    "list": (sequence, {"type": "array"}),
    "port": (port, {"type": "integer", "minimum": 1, "maximum": 65535}),
    "nodePort": (node_port, {"type": "integer"}),
    "portName": (port_name, _STRING),
    "portOrName": (port_or_name, {"type": ["integer", "string"]}),
    "targetPort": (target_port, {"type": ["integer", "string"]}),
    "label": (label_name, _STRING),
    "labelOrEmpty": (label_or_empty, {"type": "string"}),
    "name": (object_name, _STRING),
    "serviceName": (service_name, _STRING),
    "dataKey": (data_key, _STRING),
    "relativePath": (relative_path, _STRING),
    "mountPath": (mount_path, _STRING),
    "machine": (machine_name, {"type": "string", "maxLength": 63}),
    "labelValue": (label_value, _STRING),
    "labelKey": (qualified_name, _STRING),
    "device": (device, {"type": "string", "maxLength": 15}),
    "line": (line, _STRING),
    "variableName": (variable_name, _STRING),
    "workingDirectory": (working_directory, _STRING),
    "ip": (ip, {"type": "string"}),
    "ipOrEmpty": (ip_or_empty, {"type": "string"}),
    "clusterIP": (cluster_ip, {"type": "string"}),
    "endpointIP": (endpoint_ip, {"type": "string"}),
    "cidr": (network, {"type": "string"}),
    "network": (strict_network, {"type": "string"}),
    "networks": (networks, {"type": ["string", "array"], "items": {"type": "string"}}),
    "duration": (duration, _NUMBER_OR_STRING),
    "period": (period, _NUMBER_OR_STRING),
    "router": (router, _STRINGS),
    "forward": (forward, _STRING),
    "pool": (pool, _STRINGS),
    "addresses": (addresses, _STRINGS),
    "nodePortAddresses": (node_port_addresses, _STRINGS),
    "modes": (modes, _STRINGS),
    "topologyPath": (string, _STRING),
    "names": (names, _STRINGS),
    "countOrNames": (count_or_names, {"type": ["integer", "string", "array"]}),
    "ingress": (
        ingress,
        {
            "anyOf": [
                {"enum": list(_INGRESS["proxy"])},
                {
                    "type": "object",
                    "properties": {key: {"enum": list(words)} for key, words in _INGRESS.items()},
                    "additionalProperties": False,
                },
            ]
        },
    ),
    "countOrMost": (count_or_most, {"anyOf": [_COUNT, {"type": "object", "properties": {"max": _COUNT}, "required": ["max"]}]}),
    "nullable": (nullable, {"type": ["string", "null"]}),
    "rate": (rate, {"type": "string", "pattern": "^[0-9.]+ *[kKmMgG]?[bB][iI][tT]$"}),
    "percent": (percent, {"type": "string", "pattern": "^[0-9.]+ *%$"}),
}
"""Name of a type in the tables -> its check and its JSON Schema."""
