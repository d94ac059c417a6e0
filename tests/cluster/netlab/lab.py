"""Several hosts on this machine, each with one cable to a switch; cables can be cut, slow and bad."""

import subprocess
from typing import Self

from netlab.namespaces import Namespaces, inside
from netlab.wire import Wire, open_tap

SUBNET = "10.77.0"
SWITCH_ADDRESS = f"{SUBNET}.254"
BRIDGE = "switch"
BRIDGE_MAC = "02:00:0a:4d:00:fe"
"""Its own: left alone, a bridge takes that of a port, and another one when that host dies, to which nobody then sends."""
PORT_DISABLED, PORT_FORWARDING = "0", "3"


class Host(Namespaces):
    """One host of a lab."""

    def __init__(self, name: str, address: str, port: "Port") -> None:
        super().__init__(name)
        self.address = address
        self._port = port
        self.wire: Wire | None = None
        """Its cable, where that is one that delays and loses what it carries."""

    def cut(self) -> None:
        """The cable breaks, and nobody is told."""
        self._port.set("state", PORT_DISABLED)

    def mend(self) -> None:
        self._port.set("state", PORT_FORWARDING)

    def part(self) -> None:
        """From now on it hears nothing of other hosts that were parted, and they nothing of it."""
        self._port.set("isolated", "on")

    def rejoin(self) -> None:
        self._port.set("isolated", "off")

    def limit(self, mbit_per_s: int) -> None:
        """Its cable carries no more than that in either direction; 0 takes the limit away."""
        for side in (self, self._port.switch):
            device = "eth0" if side is self else self._port.device
            root = ("tc", "qdisc", "replace", "dev", device, "root")
            if mbit_per_s:
                rate = f"{mbit_per_s}mbit"
                side.run(*root, "tbf", "rate", rate, "burst", "32kb", "latency", "50ms")
            else:
                side.run("tc", "qdisc", "del", "dev", device, "root")

    def sent_bytes(self) -> int:
        """What has left through its cable."""
        return int(self.run("cat", "/sys/class/net/eth0/statistics/tx_bytes"))


class Port:
    """One port of the switch."""

    def __init__(self, switch: Namespaces, device: str) -> None:
        self.switch = switch
        self.device = device

    def set(self, name: str, value: str) -> None:
        self.switch.run("bridge", "link", "set", "dev", self.device, name, value)


class Lab:
    """Hosts around one switch, which is where a test's own process stands while it is inside."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self._switch = Namespaces("switch")
        self._inside = inside(self._switch.pid)

    def __enter__(self) -> Self:
        self._switch.run("ip", "link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge")
        self._switch.run("ip", "address", "add", f"{SWITCH_ADDRESS}/24", "dev", BRIDGE)
        self._switch.run("ip", "link", "set", BRIDGE, "up")
        self._inside.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            for host in self.hosts.values():
                if host.wire is not None:
                    host.wire.close()
                host.end()
            self._switch.end()
        finally:
            self._inside.__exit__(None, None, None)

    def boot(self, name: str, *, wire: bool = False) -> Host:
        """A host and its cable: one of the kernel's, or a `Wire`."""
        device = f"to-{name}"
        address = f"{SUBNET}.{len(self.hosts) + 1}"
        host = self.hosts[name] = Host(name, address, Port(self._switch, device))
        if wire:
            ends = open_tap(self._switch.pid, device), open_tap(host.pid, "eth0")
            host.wire = Wire(*ends)
        else:
            pair = ("type", "veth", "peer", "name", "eth0", "netns", str(host.pid))
            with inside(self._switch.pid):
                subprocess.run(["ip", "link", "add", device, *pair], check=True)
        self._switch.run("ip", "link", "set", device, "up", "master", BRIDGE)
        host.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        host.run("ip", "link", "set", "eth0", "up")
        return host
