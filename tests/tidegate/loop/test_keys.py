"""The demo's own signing key."""

from base64 import b64decode
from pathlib import Path

from stream.runtime.signing import sign, verify
from tidegate.loop.keys import signing_key


def test_a_key_is_made_once_signs_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    public = signing_key(file)
    assert signing_key(file) == public
    assert len(b64decode(public)) == 32
    assert file.stat().st_mode & 0o077 == 0
    assert verify(b"release", sign(b"release", file), [public]) is None
