"""The loop's demo takes nothing for done that was refused."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate.demo.process import CommandError
from tidegate.loop.__main__ import PARTITIONS, Told, _switched


def switch(partition: int, release: str, **also: str) -> dict[str, Any]:
    """A journal's entry of a control from the topic, as `stream.core` writes it."""
    value = {"kind": "release", "value": {"release": release}, **also}
    return {"kind": "control", "partition": partition, "control_offset": 0, "value": value}


def test_a_release_is_switched_to_once_every_partition_has_journalled_it() -> None:
    journal = Told([switch(partition, "r2") for partition in range(PARTITIONS - 1)])
    journal.take(switch(PARTITIONS - 1, "r1"))
    assert not _switched(journal, "r2")
    journal.take(switch(PARTITIONS - 1, "r2"))
    assert _switched(journal, "r2")


def test_a_release_that_a_scorer_refuses_is_told_with_the_reason() -> None:
    journal = Told([switch(partition, "r2") for partition in range(PARTITIONS - 1)])
    journal.take(switch(PARTITIONS - 1, "r2", refused="loading failed"))
    with pytest.raises(CommandError, match="a scorer refused r2: loading failed"):
        _switched(journal, "r2")
