"""Odd values of odd types become what they can be, or nothing."""

import pytest

from schemas.gateways.call import Unreadable, amount_of, count_of, flag_of, is_time_ms, text_of
from schemas.gateways.repair import loads, repair


@pytest.mark.parametrize(
    ("value", "text"),
    [("a", "a"), ("", None), (None, None), (7, "7"), (True, None), ([], None), ({}, None), (1.5, None)],
)
def test_ids_are_texts_or_integers(value: object, text: str | None) -> None:
    assert text_of(value) == text


@pytest.mark.parametrize("value", [None, "12", -1, 1.5, 10**40, float("inf"), float("nan"), True, [1]])
def test_what_is_no_count_is_none(value: object) -> None:
    assert count_of(value) is None


@pytest.mark.parametrize("value", [None, "0.1", -0.1, 10**400, float("inf"), float("nan"), False])
def test_what_is_no_amount_is_none(value: object) -> None:
    assert amount_of(value) is None


def test_flags_are_booleans_only() -> None:
    assert (flag_of(True), flag_of(False), flag_of(None), flag_of("true"), flag_of(1)) == (
        True,
        False,
        None,
        None,
        None,
    )


def test_times_lie_between_1970_and_the_year_10000() -> None:
    assert is_time_ms(0) and is_time_ms(1795304824372.5)
    assert not is_time_ms(-1) and not is_time_ms(1e18) and not is_time_ms(float("nan"))


def test_repair_makes_pythons_json_strict() -> None:
    assert loads(b'{"a": [NaN, -Infinity, 1e400], "b": "\\ud83d\\ude00 \\ud83d", "c": 123456789012345678901}') == {
        "a": [None, None, None],
        "b": "\U0001f600 \ufffd",
        "c": 1.2345678901234568e20,
    }
    assert loads(b"9" * 5_000) is None


@pytest.mark.parametrize("value", [b"", b"{", b"\xff{}", b"{'a': 1}", b"{} {}"])
def test_what_is_no_json_stays_unreadable_and_is_not_quoted(value: bytes) -> None:
    with pytest.raises(Unreadable, match="must be JSON") as caught:
        repair(value)
    assert caught.value.reason == "undecodable"


def test_nesting_beyond_pythons_is_too_deep() -> None:
    with pytest.raises(Unreadable) as caught:
        repair(b"[" * 100_000 + b"]" * 100_000)
    assert caught.value.reason == "too_deep"
