"""Whose verdict it is."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from schemas.verdict import signed_bytes
from stream.errors import DecodeError
from stream.feedback.inputs import verdict_of
from stream.runtime.feedback.identity import identity_of
from stream.runtime.signing import sign
from tests.drills.feedback_traffic import compact, verdict


@pytest.fixture
def key(tmp_path: Path) -> tuple[Path, str]:
    """File of a private key, and its public key."""
    private = Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path, b64encode(private.public_key().public_bytes_raw()).decode()


def signed(path: Path, **more: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {**verdict(1, "ada", 2)[3], **more}
    return {**plain, "signature": msgspec.to_builtins(sign(signed_bytes(plain), path))}


def identity(plain: dict[str, Any], analysts: dict[str, str]) -> str:
    said, read = verdict_of(compact(plain))
    return identity_of(said, read, analysts)


def test_without_keys_any_name_is_taken_as_unverified(key: tuple[Path, str]) -> None:
    assert identity(verdict(1, "ada", 2)[3], {}) == "unverified"
    assert identity(signed(key[0]), {}) == "unverified"


def test_a_signature_by_the_analysts_key_proves_the_name_and_fields_of_later_versions(key: tuple[Path, str]) -> None:
    assert identity(signed(key[0], later_field=[1.5]), {"ada": key[1]}) == "verified"


@pytest.mark.parametrize(
    ("change", "analysts", "reason"),
    [
        ({}, {"bob": ""}, "unknown_analyst"),
        ({"verdict_id": 1}, {"ada": ""}, "signature"),
        ({"signature": None}, {"ada": ""}, "signature"),
        ({"later_field": 2}, {"ada": ""}, "signature"),
    ],
)
def test_what_is_not_the_analysts_does_not_count(
    key: tuple[Path, str], change: dict[str, Any], analysts: dict[str, str], reason: str
) -> None:
    with pytest.raises(DecodeError) as error:
        identity({**signed(key[0], later_field=1), **change}, dict.fromkeys(analysts, key[1]))
    assert error.value.reason == reason


def test_another_analysts_key_proves_nothing(key: tuple[Path, str]) -> None:
    other = b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    with pytest.raises(DecodeError, match="must be made with the key of 'ada'"):
        identity(signed(key[0]), {"ada": other})
