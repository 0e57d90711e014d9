"""Which offset may be committed."""

from __future__ import annotations

from stream.runtime.feedback.offsets import Offsets


def test_a_record_behind_a_gap_is_not_done_before_it_is() -> None:
    """Faust's issue 606: its account marks the record that follows a gap as acknowledged."""
    offsets: Offsets[str] = Offsets()
    for offset in (10, 14, 15):
        offsets.hand_out("p", offset)
    offsets.done("p", 10)
    assert offsets.committable("p") == 14
    offsets.done("p", 15)
    assert offsets.committable("p") == 14
    offsets.done("p", 14)
    assert offsets.committable("p") == 16


def test_markers_at_the_beginning_and_at_the_end_are_passed_over() -> None:
    offsets: Offsets[str] = Offsets()
    offsets.hand_out("p", 0)
    offsets.hand_out("p", 5)
    offsets.done("p", 0)
    assert offsets.committable("p") == 5
    offsets.done("p", 5)
    offsets.read({"p": 9, "q": 3})
    assert (offsets.committable("p"), offsets.committable("q")) == (9, 3)


def test_what_was_read_past_an_open_record_does_not_count() -> None:
    offsets: Offsets[str] = Offsets()
    offsets.hand_out("p", 7)
    offsets.read({"p": 20})
    assert offsets.committable("p") == 7
    offsets.done("p", 7)
    offsets.done("p", 7)
    assert offsets.committable("p") == 20


def test_a_partition_that_is_given_up_is_forgotten() -> None:
    offsets: Offsets[str] = Offsets()
    offsets.hand_out("p", 7)
    offsets.hand_out("q", 1)
    offsets.forget({"p"})
    assert (offsets.committable("p"), offsets.places(), offsets.open) == (None, ["q"], 1)
    offsets.done("p", 7)
    assert offsets.committable("p") is None
    offsets.forget()
    assert offsets.places() == []
