"""A message has one digest wherever it turns up."""

from hashlib import blake2b

from schemas.digest import message_digest, plain_digest
from schemas.event import Part


def test_the_digest_is_blake2b_128_of_the_sorted_json_of_role_and_parts() -> None:
    expected = blake2b(b'["user",[{"text":"hi","type":"text"}]]', digest_size=16).hexdigest()
    assert message_digest("user", [Part("text", text="hi")]) == expected
    assert plain_digest("user", [{"type": "text", "text": "hi"}]) == expected


def test_role_and_text_both_count() -> None:
    texts = {message_digest(role, [Part("text", text=text)]) for role in ("user", "tool") for text in ("a", "b")}
    assert len(texts) == 4


def test_a_renewed_tool_call_id_changes_nothing() -> None:
    one = message_digest("tool", [Part("tool_call_response", id="call_1", response="x")])
    assert one == message_digest("tool", [Part("tool_call_response", id="call_2", response="x")])


def test_reasoning_that_no_client_sends_back_is_left_out() -> None:
    answer = Part("text", text="42")
    assert message_digest("assistant", [Part("reasoning", text="6 by 7"), answer]) == message_digest(
        "assistant", [answer]
    )


def test_text_cannot_pose_as_another_part() -> None:
    assert message_digest("tool", [Part("text", text="x")]) != message_digest(
        "tool", [Part("tool_call_response", response="x")]
    )
