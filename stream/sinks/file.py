"""Outcomes into files, the same bytes for the same outcomes however they were cut."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import orjson

from schemas.dead_letter import DeadLetterLine, Reason
from stream.record import DeadLetter, OutRecord
from stream.sinks.sink import Written
from stream.sinks.sorter import Key, LineSorter

SPILL_BYTES = 32 * 2**20
"""Lines of one kind kept in memory before they go to disk."""

SCORES, FINDINGS, DEAD_LETTERS, SUMMARY = "scores.jsonl", "findings.jsonl", "deadletters.jsonl", "summary.json"


class FileSink:
    """A `Sink` into `findings.jsonl`, `scores.jsonl`, `deadletters.jsonl` and `summary.json` of one folder.

    Lines are ordered by partition, offset and revision of what caused them. The files appear with `close`, each at once
    and whole; left without it, the folder is as it was.

    Parameters
    ----------
    out
        The folder, which is made when it is not there; other files in it stay.
    spill_bytes
        Bytes of lines kept in memory, a kind.
    """

    def __init__(self, out: Path, spill_bytes: int = SPILL_BYTES) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out = out
        self._folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=out))
        self._sorters = {name: LineSorter(self._folder, name, spill_bytes) for name in (FINDINGS, SCORES, DEAD_LETTERS)}
        self._created = 0

    def write(self, outcome: Written) -> None:
        """Take all of `outcome`."""
        scores = self._sorters[SCORES]
        for score in outcome.scores:
            scores.add(_key(score), score.value)
        for finding in outcome.findings:
            revision = _FINDING.decode(finding.value).metadata.sequence
            self._created += revision == 1
            self._sorters[FINDINGS].add(_key(finding, revision), finding.value)
        for letter in outcome.dead_letters:
            record = letter.record
            self._sorters[DEAD_LETTERS].add((record.partition, record.offset, 0), _dead_letter_line(letter))

    def close(self, summary: Mapping[str, object] | None = None) -> dict[str, object]:
        """Put the files into place, and return what `summary.json` says.

        Parameters
        ----------
        summary
            To be added to counts and hashes; JSON, and nothing of the clock.
        """
        said: dict[str, object] = dict(summary or {})
        said["findings_opened"] = self._created
        for name, sorter in self._sorters.items():
            kind = name.removesuffix(".jsonl")
            said[kind], said[f"{kind}_sha256"] = _write(self._folder / name, sorter)
        text = orjson.dumps(said, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2)
        _write(self._folder / SUMMARY, [text])
        for name in (*self._sorters, SUMMARY):
            (self._folder / name).replace(self._out / name)
        shutil.rmtree(self._folder)
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class _Metadata(msgspec.Struct):
    sequence: int


class _Finding(msgspec.Struct):
    metadata: _Metadata


_FINDING = msgspec.json.Decoder(_Finding)


def _key(record: OutRecord, revision: int = 0) -> Key:
    # By what caused it: a finding's own partition is that of its uid.
    _, partition, offset = record.source
    return partition, offset, revision


def _dead_letter_line(letter: DeadLetter) -> bytes:
    record = letter.record
    value = record.value or b""
    line = DeadLetterLine(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=msgspec.convert(letter.reason, Reason),
        stage=letter.stage,
        exception_class=letter.exception_class,
        message=letter.message,
        sha256=sha256(value).hexdigest(),
        bytes=len(value),
    )
    return msgspec.json.encode(line, order="sorted")


def _write(path: Path, lines: Iterable[bytes]) -> tuple[int, str]:
    """Number of lines, and sha256 of the file."""
    count, digest = 0, sha256()
    with path.open("wb") as file:
        for line in lines:
            file.write(line)
            file.write(b"\n")
            digest.update(line)
            digest.update(b"\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count, digest.hexdigest()
