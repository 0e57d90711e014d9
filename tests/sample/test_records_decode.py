"""The sample's records read as its gateways' do, and what a model answered comes back as history."""

import orjson
import pytest

from sample.records import LIVE, Format, records
from schemas.gateways.call import RawMessage
from schemas.gateways.litellm import LiteLLM
from schemas.gateways.native import Native
from stream.steps.identify import event_id

Said = tuple[str, list[dict[str, str]]]


def said(message: RawMessage) -> Said:
    """The message without the ids of its tool calls, which digests leave out too."""
    return message.role, [{name: text for name, text in part.items() if name != "id"} for part in message.parts]


@pytest.mark.parametrize(
    ("format", "gateway"), [("litellm", LiteLLM()), ("native", Native())], ids=["litellm", "native"]
)
def test_each_record_is_one_call_with_the_time_tenant_and_session_that_are_known(
    format: Format, gateway: LiteLLM | Native
) -> None:
    for time_ms, record, known in records(LIVE, format):
        (call,) = gateway.decode(orjson.dumps(record))
        assert event_id(call, "") == known.event_id
        assert (call.event_time_ms, call.tenant, call.session) == (time_ms, known.tenant, known.gateway_session)


@pytest.mark.parametrize(
    ("format", "gateway"), [("litellm", LiteLLM()), ("native", Native())], ids=["litellm", "native"]
)
def test_each_answer_comes_back_in_the_history_of_the_next_call(format: Format, gateway: LiteLLM | Native) -> None:
    answers: dict[str, tuple[int, Said]] = {}
    echoed = 0
    for _, record, known in records(LIVE, format):
        (call,) = gateway.decode(orjson.dumps(record))
        if known.session in answers:
            position, answer = answers[known.session]
            assert said(call.parse(call.messages[position])) == answer
            echoed += 1
        if call.output:
            answers[known.session] = len(call.messages), said(call.parse(call.output[0]))
    assert echoed > 1000
