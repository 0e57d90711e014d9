"""Ed25519 signatures of manifests and verdicts."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path

from schemas.manifest import Signature
from stream.errors import UsageError


def sign(message: bytes, key_file: Path, setting: str = "release.signing_key_file") -> Signature:
    """A signature of `message` with the private key (PEM, unencrypted) in `key_file`, which `setting` names.

    Raises
    ------
    UsageError
        When there is no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    required = f"{setting} {key_file} must hold an unencrypted Ed25519 private key (PEM)"
    remedy = "Make one with: openssl genpkey -algorithm ed25519 -out FILE"
    try:
        key = load_pem_private_key(key_file.read_bytes(), None)
    except OSError as error:
        raise UsageError(f"{required}; {error.strerror or error}. {remedy}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{required}; {error}. {remedy}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{required}; it holds another kind of key. {remedy}")
    public = key.public_key().public_bytes_raw()
    return Signature(key=b64encode(public).decode(), value=b64encode(key.sign(message)).decode())


def verify(message: bytes, signature: Signature, trusted: Sequence[str]) -> str | None:
    """Why `signature` does not vouch for `message`, None when it does.

    Parameters
    ----------
    trusted
        Public keys, base64 of 32 bytes.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if signature.key not in trusted:
        return f"it is signed with key {signature.key}, which is not among release.trusted_keys"
    try:
        key = Ed25519PublicKey.from_public_bytes(b64decode(signature.key, validate=True))
        key.verify(b64decode(signature.value, validate=True), message)
    except (InvalidSignature, ValueError, binascii.Error):
        return "its signature is not of this manifest: it was changed after it was signed"
    return None
