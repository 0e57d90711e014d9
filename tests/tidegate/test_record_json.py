"""Bounds and forms of a gateway's records; sizes are counted on the bytes that come out."""

import json
import time
from typing import Any

import pytest

from schemas.gateways.litellm import LiteLLM
from tests.schemas.litellm_payload import payload
from tidegate.record_json import encode, encode_within


def _within(record: dict[str, Any], bytes_max: int) -> tuple[dict[str, Any], bool]:
    made = encode_within(record, bytes_max)
    assert made is not None
    value, cut = made
    assert len(value) <= bytes_max
    read: dict[str, Any] = json.loads(value)
    return read, cut


def test_a_record_of_plain_values_is_written_as_it_is() -> None:
    assert json.loads(encode(payload()) or b"") == payload()


def test_a_record_that_fits_is_not_cut() -> None:
    assert _within(payload(), 10_000) == (payload(), False)


@pytest.mark.parametrize("text", ["x" * 50_000, '"\n' * 25_000, "é" * 50_000, "x" * 25_000 + "\x00" * 25_000])
def test_a_long_text_loses_its_middle_and_the_record_says_so(text: str) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"BEGIN{text}END"}]
    record, cut = _within(payload(messages=messages), 20_000)
    assert cut
    assert record["messages"][0] == messages[0]
    content = record["messages"][1]["content"]
    assert content.startswith("BEGIN") and content.endswith("END") and " characters left out]" in content
    # The room is used: a text of two bytes a character may keep half of the bound in characters.
    assert len(json.dumps(record, ensure_ascii=False).encode()) > 13_000
    (call,) = LiteLLM().decode(json.dumps(record).encode())
    assert call.content_state == "truncated"


def test_the_longest_texts_are_cut_to_one_length_and_shorter_ones_stay() -> None:
    messages = [
        {"role": "tool", "content": letter * size} for letter, size in (("a", 500), ("b", 30_000), ("c", 90_000))
    ]
    record, _ = _within(payload(messages=messages), 20_000)
    short, middle, long = (message["content"] for message in record["messages"])
    assert short == "a" * 500
    assert abs(middle.count("b") - long.count("c")) <= 2
    assert middle.count("b") > 7_000


def test_a_list_of_very_many_messages_keeps_its_head_and_its_tail() -> None:
    messages = [{"role": "user", "content": f"{number}"} for number in range(100_000)]
    record, cut = _within(payload(messages=messages), 20_000)
    assert cut
    assert [message["content"] for message in record["messages"]] == [
        *[str(number) for number in range(8)],
        *[str(number) for number in range(99_944, 100_000)],
    ]


def test_of_a_record_that_cannot_be_cut_enough_the_facts_stay() -> None:
    wide = {f"{number}": {f"{inner}": "x" for inner in range(60)} for number in range(60)}
    messages = [{"role": "user", "content": [wide] * 60}] * 60
    started = time.monotonic()
    record, cut = _within(payload(messages=messages), 8_000)
    # Thirteen million values would take a minute; what is looked at is bounded, with room for a busy machine.
    assert time.monotonic() - started < 10
    assert cut
    assert record["messages"] is None and record["response"] is None
    assert record["litellm_call_id"] == payload()["litellm_call_id"]
    (call,) = LiteLLM().decode(json.dumps(record).encode())
    assert (call.tenant, call.session, call.prompt_tokens) == ("team-42", "sess-7f2c", 76)


def test_a_record_whose_facts_do_not_fit_is_refused() -> None:
    assert encode_within(payload(), 100) is None


def test_half_a_surrogate_pair_hides_no_call() -> None:
    record = payload(messages=[{"role": "user", "content": "before \ud83d after"}])
    assert encode(record) is None
    assert _within(record, 10_000)[0]["messages"] == [{"role": "user", "content": "before � after"}]


def test_a_record_nested_too_deep_is_cut_below_what_ingest_refuses() -> None:
    nested: Any = "deep"
    for _ in range(5_000):
        nested = [nested]
    record = payload(messages=[{"role": "user", "content": "kept", "extra": nested}])
    assert encode(record) is None
    made, cut = _within(record, 10_000)
    assert cut
    assert made["messages"][0]["content"] == "kept"
    text = json.dumps(made["messages"])
    assert text.count("[") < 64


class _Odd:
    def __str__(self) -> str:
        return "an odd thing"


class _Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _Model:
    def model_dump(self) -> dict[str, str]:
        return {"role": "assistant"}


def test_objects_become_what_they_say_of_themselves() -> None:
    record = {"a": _Odd(), "b": {"x"}, "c": b"\xff", "d": _Model(), 5: 1}
    wanted = {"a": "an odd thing", "b": ["x"], "c": "�", "d": {"role": "assistant"}, "5": 1}
    assert json.loads(encode(record) or b"") == wanted  # type: ignore[arg-type]
    assert _within(record, 1_000) == (wanted, False)  # type: ignore[arg-type]


def test_an_object_that_cannot_be_written_is_named() -> None:
    assert _within({"a": _Broken(), "n": 2**80, "m": 2**100_000}, 1_000) == (
        {"a": "_Broken", "n": str(2**80), "m": "…"},
        False,
    )
