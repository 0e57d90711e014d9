"""A record knows its headers and its place."""

from stream.record import Record


def test_the_last_header_of_a_name_counts() -> None:
    record = Record("t", 1, 2, 3, None, b"", (("a", b"1"), ("a", b"2"), ("b", None)))
    assert (record.header("a"), record.header("b"), record.header("c")) == (b"2", None, None)


def test_a_position_names_topic_partition_and_offset() -> None:
    assert Record("t", 1, 2, 3, None, None).position == "t[1]@2"
