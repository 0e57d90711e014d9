"""What a run has finished, kept piece by piece: whoever starts it again goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import msgspec

from evaluation.report.facts import Facts, read_facts, write_facts
from evaluation.row import Row
from stream.runtime.report.page import put

_ROWS, _WHOSE = "rows.jsonl", "fingerprint"
_CODE = ("schemas", "models", "stream", "evaluation")
_DECIDES = (".py", ".toml", ".json", ".safetensors", ".txt")
"""What files of code, lists and weights end in."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Finished parts, each a folder of rows and facts.

    Parameters
    ----------
    folder
        Of the parts.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path, fingerprint: str) -> tuple[Parts, bool]:
        """Those of a run, and whether there are any; those of another run are removed.

        Parameters
        ----------
        fingerprint
            Of all that the parts' figures depend on.

        Raises
        ------
        OSError
            When the folder cannot be written.
        """
        whose = folder / _WHOSE
        mine = whose.is_file() and whose.read_text() == fingerprint
        if not mine:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            put(whose, fingerprint.encode())
        return cls(folder), mine and any(path.is_dir() for path in folder.iterdir())

    def has(self, name: str) -> bool:
        """Whether a part is finished."""
        return (self.folder / name / _ROWS).is_file()

    def put(self, name: str, rows: Iterable[Row], facts: Facts) -> None:
        """Keep a part; its rows come last, and it counts once they are there."""
        own = self.folder / name
        own.mkdir(exist_ok=True)
        write_facts(facts, own)
        encoder = msgspec.json.Encoder()
        put(own / _ROWS, b"".join(encoder.encode(row) + b"\n" for row in rows))

    def rows(self, names: Sequence[str]) -> Iterator[bytes]:
        """The rows of parts, a chunk a part."""
        return ((self.folder / name / _ROWS).read_bytes() for name in names)

    def facts(self, names: Sequence[str], of: Facts) -> Facts:
        """What all parts say beside their rows, under the head of `of`."""
        parts = [read_facts(self.folder / name) for name in names]
        return msgspec.structs.replace(
            of,
            counts=[count for part in parts for count in part.counts],
            costs=[cost for part in parts for cost in part.costs],
            absent=[*of.absent, *(absent for part in parts for absent in part.absent)],
            streams=[stream for part in parts for stream in part.streams],
        )


def fingerprint(inputs: Iterable[Path], settings: Iterable[str], root: Path = Path(__file__).parents[1]) -> str:
    """A hash of files, of settings, and of this version's own code and weights."""
    digest = sha256()
    code = sorted(path for name in _CODE for path in (root / name).rglob("*") if path.suffix in _DECIDES)
    for path in (*sorted(inputs), *code):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    for setting in settings:
        digest.update(f"{setting}\n".encode())
    return digest.hexdigest()
