"""Lines of files, packed or not."""

import gzip
from pathlib import Path

import pytest

from stream.sources.lines import read_lines


def test_lines_come_without_their_ends_and_the_last_needs_none(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"one\r\n\ntwo")
    assert list(read_lines(path)) == [b"one", b"", b"two"]


def test_packed_file_reads_like_a_plain_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"one\ntwo\n"))
    assert list(read_lines(path)) == [b"one", b"two"]


@pytest.mark.parametrize("length", [9, 10, 11, 19, 20, 21, 35])
def test_line_beyond_the_limit_is_cut_and_the_next_one_whole(tmp_path: Path, length: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"x" * length + b"\nnext\n" + b"y" * length)
    assert list(read_lines(path, bytes_max=10)) == [b"x" * min(length, 10), b"next", b"y" * min(length, 10)]
