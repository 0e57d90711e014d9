"""A key that releases are signed with: `python -m tidegate.keys PRIVATE PUBLIC` makes it where there is none."""

import sys
from base64 import b64encode
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


def signing_key(file: Path) -> str:
    """The public key (base64) of the Ed25519 key in `file`, which is made where there is none.

    Raises
    ------
    TypeError
        When the file holds another kind of key.
    """
    if not file.exists():
        made = Ed25519PrivateKey.generate()
        file.touch(mode=0o600)
        file.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key = load_pem_private_key(file.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError(f"{file} must hold an Ed25519 private key; it holds another kind. Move it away.")
    return b64encode(key.public_key().public_bytes_raw()).decode()


def main(arguments: list[str]) -> int:
    """Make the key in the first file, unless it is there, and write its public half (base64) to the second."""
    if len(arguments) != 2:
        print("usage: python -m tidegate.keys PRIVATE PUBLIC", file=sys.stderr)
        return 2
    private, public = map(Path, arguments)
    public.write_text(signing_key(private) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
