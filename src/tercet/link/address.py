"""How two of our processes reach each other: unix socket or TCP, plain or TLS."""

import hashlib
import ssl
from pathlib import Path

from tercet.config import TlsConfig
from tercet.wire import Endpoint

_HOST_FACTS = ("/proc/sys/kernel/random/boot_id", "/etc/machine-id")
_NAMESPACES = ("/proc/self/ns/net", "/proc/self/ns/mnt")


def host_id() -> str:
    """A name that is equal on processes which share a kernel, its network and its file system, and on no others.

    Namespaces count, because a unix socket in one container is not a file in the next.
    """
    facts = [Path(path).read_text().strip() for path in _HOST_FACTS if Path(path).exists()]
    facts += [str(Path(path).readlink()) for path in _NAMESPACES if Path(path).is_symlink()]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def uses_unix(endpoint: Endpoint, own_host_id: str, tls: TlsConfig | None) -> bool:
    """Whether the unix socket is the way: same host, and no TLS asked for."""
    return bool(endpoint.unix) and endpoint.host_id == own_host_id and tls is None


class SocketFile:
    """The unix socket of one listener: replaces what a former life left behind, and removes only its own."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inode = 0
        path.unlink(missing_ok=True)

    def bound(self) -> None:
        """The listener has created the file."""
        self._inode = self._path.stat().st_ino

    def remove(self) -> None:
        """Remove the file, unless a successor has already put its own in its place."""
        if self._path.exists() and self._path.stat().st_ino == self._inode:
            self._path.unlink()


def client_tls(tls: TlsConfig | None) -> ssl.SSLContext | None:
    """TLS as the side that connects; None without TLS."""
    return None if tls is None else _context(tls, ssl.PROTOCOL_TLS_CLIENT)


def server_tls(tls: TlsConfig | None) -> ssl.SSLContext | None:
    """TLS as the side that listens; None without TLS."""
    return None if tls is None else _context(tls, ssl.PROTOCOL_TLS_SERVER)


def _context(tls: TlsConfig, side: int) -> ssl.SSLContext:
    # The authority belongs to this one cluster and addresses come from its control plane, so membership is proven by the
    # certificate's issuer; host names are not compared (workers are addressed by whatever address their node has today).
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tls.certificate, tls.key)
    context.load_verify_locations(tls.authority)
    return context
