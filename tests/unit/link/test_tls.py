"""Mutual TLS: both sides prove that the cluster's own authority signed them, and the unix socket is left aside."""

import datetime
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tercet.config import LinkConfig, TlsConfig
from tercet.errors import PeerLost
from tercet.ids import Epoch, RequestId
from tercet.link import connect, host_id
from tercet.link.address import uses_unix
from tercet.wire import Cancel, Started, WorkerMessage


def certificate(name: str, key, issuer: str, issuer_key, *, authority: bool) -> x509.Certificate:
    today = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )


def identity(directory: Path, name: str) -> TlsConfig:
    """A fresh authority and one certificate of it."""
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = certificate(name, authority_key, name, authority_key, authority=True)
    leaf = certificate(f"{name}-worker", key, name, authority_key, authority=False)
    files = {suffix: directory / f"{name}.{suffix}" for suffix in ("crt", "key", "ca")}
    files["crt"].write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    files["ca"].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files["key"].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return TlsConfig(
        certificate=str(files["crt"]), key=str(files["key"]), authority=str(files["ca"])
    )


async def echo(hello, link):
    async for messages in link:
        link.post(*(Started(m.request, m.epoch) for m in messages))


async def test_members_of_one_authority_talk_over_tcp(host, hello, tmp_path):
    config = LinkConfig(tls=identity(tmp_path, "ours"))
    endpoint = await host.serve(echo, config)
    assert not host.has_socket
    assert not uses_unix(endpoint, host_id(), config.tls)
    link, _ = await connect(endpoint, hello(), WorkerMessage, config, host_id())
    link.post(Cancel(RequestId("r"), Epoch(1)))
    assert await anext(link) == [Started(RequestId("r"), Epoch(1))]
    await link.close()


async def test_a_foreign_certificate_and_plain_text_are_turned_away(host, hello, tmp_path):
    ours, theirs = (identity(tmp_path, name) for name in ("ours", "theirs"))
    endpoint = await host.serve(echo, LinkConfig(tls=ours))
    intruder = msgspec.structs.replace(theirs, authority=ours.authority)
    for tls in (intruder, theirs, None):
        config = LinkConfig(tls=tls, dead_after_s=1.0)
        remote = msgspec.structs.replace(endpoint, unix="")
        with pytest.raises(PeerLost):
            await connect(remote, hello(), WorkerMessage, config, host_id())
