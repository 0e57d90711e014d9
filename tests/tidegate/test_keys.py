"""The key that the compose file and the loop's demo sign releases with."""

from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from stream.runtime.signing import sign, verify
from tidegate.keys import main, signing_key


def test_a_key_is_made_once_signs_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    private, public = tmp_path / "key.pem", tmp_path / "trusted.key"
    assert main([str(private), str(public)]) == 0
    trusted = public.read_text().strip()
    assert signing_key(private) == trusted
    assert len(b64decode(trusted)) == 32
    assert private.stat().st_mode & 0o077 == 0
    assert verify(b"release", sign(b"release", private), [trusted]) is None


def test_another_kind_of_key_is_refused(tmp_path: Path) -> None:
    private = tmp_path / "key.pem"
    pem = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    private.write_bytes(pem)
    with pytest.raises(TypeError, match=r"must hold an Ed25519 private key; it holds another kind\. Move it away\."):
        signing_key(private)


def test_it_says_how_it_is_used() -> None:
    assert main(["one"]) == 2
