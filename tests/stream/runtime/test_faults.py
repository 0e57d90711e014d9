"""What shells do about faults."""

from itertools import islice

from confluent_kafka import KafkaError

from stream.errors import EnvironmentFault, RetriableError
from stream.runtime.faults import backoffs, retriable_or_exit


def test_a_question_that_failed_is_asked_again_unless_the_answer_is_no() -> None:
    away = retriable_or_exit(KafkaError(KafkaError.FENCED_LEADER_EPOCH), "the ends of t cannot be read")
    assert isinstance(away, RetriableError)
    refused = retriable_or_exit(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "the ends of t cannot be read")
    assert isinstance(refused, EnvironmentFault)


def test_waits_double_up_to_a_bound_and_never_come_in_step() -> None:
    first, second = (list(islice(backoffs(0.1, 2.0), 9)) for _ in range(2))
    bounds = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(first, bounds, strict=True))
    assert first != second
