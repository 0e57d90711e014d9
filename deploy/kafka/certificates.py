"""Certificates for a broker on loopback and its clients: made for one run, trusted by nobody else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

_LIFE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the files lie, all PEM."""

    authority: Path
    """The certificate that everybody trusts."""
    broker: Path
    """The broker's key and certificate, in one file as Kafka takes them."""
    client: Path
    """A client's certificate, for TLS on both sides."""
    client_key: Path
    """Its key, encrypted with `password`."""
    password: str


def make(folder: Path, password: str) -> Certificates:
    """Certificates in `folder`, of an authority whose key is forgotten."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificates(
        folder / "authority.pem", folder / "broker.pem", folder / "client.pem", folder / "client-key.pem", password
    )
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("tidegate-local-authority", authority_key, None, authority_key)
    broker_key, client_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    _write(made.authority, _pem(authority))
    broker = _certificate("localhost", broker_key, authority, authority_key)
    _write(made.broker, _key(broker_key, NoEncryption()) + _pem(broker) + _pem(authority))
    _write(made.client, _pem(_certificate("tidegate-client", client_key, authority, authority_key)))
    _write(made.client_key, _key(client_key, BestAvailableEncryption(password.encode())))
    return made


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Certificate | None, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of containers differ by a little.
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    )
    return builder.sign(issuer_key, SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key(key: ec.EllipticCurvePrivateKey, encryption: KeySerializationEncryption) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _write(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)
