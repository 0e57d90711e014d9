"""A job's directory: every output appears whole or not at all, and what is there need not be made again."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import orjson

from schemas.undecodable import UNDECODABLE
from stream.errors import StateError, UsageError

T = TypeVar("T")


class JobFolder:
    """`trainer.directory/<request id>`.

    Parameters
    ----------
    root
        `trainer.directory`.

    Raises
    ------
    UsageError
        When it cannot be made.
    """

    def __init__(self, root: Path, request_id: str) -> None:
        self.path = root / request_id
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"trainer.directory {root} must be a directory that can be written; {error.strerror or error}. "
                "Set TIDEGATE_TRAINER__DIRECTORY."
            ) from error

    def has(self, name: str) -> bool:
        """Whether an output is there."""
        return (self.path / name).exists()

    def write(self, name: str, value: Any) -> None:
        """Keep a value as JSON, its keys sorted."""
        body = orjson.dumps(msgspec.to_builtins(value), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2) + b"\n"
        # One process works on a job, so what a killed one left under this name is simply written anew.
        made = self.path / f".{name}.made"
        made.write_bytes(body)
        sync(made)
        made.replace(self.path / name)
        sync(self.path)

    def read(self, name: str, kind: type[T]) -> T:
        """A value that was kept.

        Raises
        ------
        StateError
            When it is not what it must be.
        """
        path = self.path / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (OSError, *UNDECODABLE) as error:
            raise StateError(
                f"{path} must be what a job of this version kept there; {error}. Remove {self.path} and ask again: "
                "the job begins anew."
            ) from error

    @contextmanager
    def making(self, name: str) -> Iterator[Path]:
        """A new directory to fill, which is `name` once all in it is written."""
        for stale in self.path.glob(f".{name}.*"):
            shutil.rmtree(stale, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=self.path))
        yield made
        made.chmod(0o755)
        for file in made.iterdir():
            if file.is_file():
                sync(file)
        sync(made)
        made.rename(self.path / name)
        sync(self.path)

    def remove(self, *names: str) -> None:
        """Let go of what nothing needs any more."""
        for name in names:
            shutil.rmtree(self.path / name, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
