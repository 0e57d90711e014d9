"""What of requirements.lock an image needs: the packages of some extras and all that they depend on, hashes kept.

The lock holds every extra's packages, those of development too, and says under each who asks for it ("# via"); from
that the way down is found. Only the standard library: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CUDA = ("nvidia-", "cuda-", "triton")
"""Starts of the names of what torch needs on a CUDA device alone."""


def locked(text: str) -> dict[str, str]:
    """Package -> its lines in the lock: pin, hashes, and who asks for it."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", text):
        if (name := re.match(r"([A-Za-z0-9._-]+)==", block)) is not None:
            found[name[1]] = block.rstrip("\n")
    return found


def askers(block: str) -> list[str]:
    r"""Who asks for a package.

    >>> askers("a==1 \\\n    --hash=sha256:00\n    # via\n    #   b\n    #   tidegate (pyproject.toml)")
    ['b', 'tidegate (pyproject.toml)']
    >>> askers("a==1 \\\n    --hash=sha256:00\n    # via b")
    ['b']
    """
    said = " ".join(line.strip().removeprefix("#").strip() for line in block.splitlines() if line.startswith("    #"))
    return [name.strip() for name in re.findall(r"[\w.-]+(?: \(pyproject\.toml\))?", said.removeprefix("via").strip())]


def wanted(lock: Mapping[str, str], direct: Iterable[str]) -> dict[str, str]:
    """The packages `direct` and all that they ask for, in the lock's order."""
    reached, new = set[str](), {name for name in direct if name in lock}
    while new:
        reached |= new
        new = {name for name, block in lock.items() if reached.intersection(askers(block))} - reached
    return {name: block for name, block in lock.items() if name in reached}


def of_extras(extras: Iterable[str], also: Iterable[str] = (), root: Path = ROOT) -> dict[str, str]:
    """What the lock has for these extras of pyproject.toml, and for the packages `also`."""
    declared = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = [_normal(requirement) for extra in extras for requirement in declared[extra]]
    return wanted(locked((root / "requirements.lock").read_text()), [*names, *also])


def _normal(requirement: str) -> str:
    name = _NAME.match(requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def main() -> int:
    """Print the part of the lock."""
    parser = argparse.ArgumentParser(prog="python deploy/requirements.py", description=__doc__)
    parser.add_argument("extras", nargs="*", help="of pyproject.toml")
    parser.add_argument("--also", action="append", default=[], metavar="NAME", help="this package too")
    parser.add_argument("--only", metavar="NAME", help="this package and nothing else")
    parser.add_argument("--pin", action="store_true", help="with --only: its version without hashes")
    parser.add_argument("--without-torch", action="store_true", help="nor what it needs for CUDA")
    given = parser.parse_args()
    if given.only:
        block = locked((ROOT / "requirements.lock").read_text())[given.only]
        print(block.split(" \\")[0] if given.pin else block)
        return 0
    for name, block in of_extras(given.extras, given.also).items():
        if not (given.without_torch and (name == "torch" or name.startswith(CUDA))):
            print(block)
    return 0


if __name__ == "__main__":
    sys.exit(main())
