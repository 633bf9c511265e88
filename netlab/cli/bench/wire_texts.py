"""A lab's namespaces, links, addresses, routes and neighbours as the peers read them: `ip -batch`, and the C program floor.c.

What bridges know of their ports only the C program makes as netlab does; the others let them learn.
"""

from collections.abc import Iterable, Mapping

from netlab.ops import Bridge, DeviceAddress, Neighbour, Netns, Op, Route, Veth

Wire = Netns | Bridge | Veth | DeviceAddress | Route | Neighbour


def wires(ops: Iterable[Op]) -> tuple[Wire, ...]:
    """Those of the ops that the peers make, too: no sysctls, rules, listeners and files."""
    return tuple(op for op in ops if isinstance(op, Wire))


def batches(ops: Iterable[Op]) -> Mapping[str, list[str]]:
    """`ip -batch` input: "" for what is made from outside, otherwise a namespace's own lines."""
    names: dict[str, str] = {}
    text: dict[str, list[str]] = {"": []}
    up: dict[str, list[str]] = {}
    for op in ops:
        match op:
            case Netns(name):
                names[name] = f"n{len(names)}"
                text[""].append(f"netns add {names[name]}")
                text[names[name]] = ["link set lo up"]
            case Bridge(netns, device, mac):
                text[names[netns]] += [f"link add {device} address {mac} type bridge", f"link set {device} up"]
            case Veth():
                one, other = names[op.netns], names[op.peer_netns]
                ends = f"{op.device} netns {one} address {op.mac} type veth peer name {op.peer_device} netns {other}"
                text[""].append(f"link add {ends} address {op.peer_mac}")
                for name, device, master in ((one, op.device, op.master), (other, op.peer_device, op.peer_master)):
                    up.setdefault(name, []).append(f"link set {device}{' master ' + master if master else ''} up")
            case DeviceAddress(netns, device, address, length, prefix_route):
                up.setdefault(names[netns], []).append(
                    f"addr add {address}/{length} dev {device}{'' if prefix_route else ' noprefixroute'}"
                )
            case Route(netns, destination, gateway, device, source, kind, onlink):
                via = f" via {gateway}" if gateway else ""
                dev = f" dev {device}" if device else ""
                src = f" src {source}" if source else ""
                up.setdefault(names[netns], []).append(f"route add {kind} {destination}{via}{dev}{src}{' onlink' * onlink}")
            case Neighbour(netns, device, address, mac):
                up.setdefault(names[netns], []).append(f"neigh add {address} lladdr {mac} dev {device} nud permanent")
            case _:
                pass
    for name, lines in up.items():
        text[name] += lines
    return text


def floor_lines(ops: Iterable[Op]) -> str:
    """What floor.c reads: a line for each op, in the plan's order, and at the end one for each port of a bridge."""
    numbers: dict[str, int] = {}
    lines: list[str] = []
    stations: list[str] = []
    for op in ops:
        match op:
            case Netns(name):
                numbers[name] = len(numbers)
                lines.append(f"n {name}")
            case Bridge(netns, device, mac, mtu):
                lines.append(f"b {numbers[netns]} {device} {mac} {mtu}")
            case Veth():
                near = f"{numbers[op.netns]} {op.device} {op.mac} {op.master or '-'} {op.up:d}"
                far = f"{numbers[op.peer_netns]} {op.peer_device} {op.peer_mac} {op.peer_master or '-'} {op.peer_up:d}"
                lines.append(f"v {near} {far} {op.mtu_bytes}")
                ends = ((op.netns, op.device, op.master, op.peer_mac), (op.peer_netns, op.peer_device, op.peer_master, op.mac))
                stations += [f"f {numbers[netns]} {port} {mac}" for netns, port, master, mac in ends if master and mac]
            case DeviceAddress(netns, device, address, length, prefix_route):
                lines.append(f"a {numbers[netns]} {device} {address} {length} {prefix_route:d}")
            case Route(netns, destination, gateway, device, source, kind, onlink):
                to = f"{destination.network_address} {destination.prefixlen} {gateway or '-'} {device or '-'} {source or '-'}"
                lines.append(f"r {numbers[netns]} {to} {onlink:d} {kind == 'blackhole':d}")
            case Neighbour(netns, device, address, mac):
                lines.append(f"g {numbers[netns]} {device} {address} {mac}")
            case _:
                pass
    return "".join(line + "\n" for line in (*lines, *stations))
