import io
import json
import logging
from collections.abc import Iterator

import pytest

from stream.runtime.logs import Repeats, configure, hide, masked


@pytest.fixture(autouse=True)
def root_logger_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_hold_time_level_logger_and_message() -> None:
    out = io.StringIO()
    configure("json", out)
    logging.getLogger("stream.test").warning("lag is %d", 7)
    entry = json.loads(out.getvalue())
    assert entry.pop("time").endswith("+00:00")
    assert entry == {"level": "warning", "logger": "stream.test", "message": "lag is 7"}


def test_an_exception_stays_on_one_json_line() -> None:
    out = io.StringIO()
    configure("json", out)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger().exception("failed")
    (line,) = out.getvalue().splitlines()
    assert "ValueError: two\nlines" in json.loads(line)["exception"]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_what_is_hidden_is_in_no_message_and_no_traceback(log_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream.runtime.logs._HIDDEN", set())
    out = io.StringIO()
    configure(log_format, out)
    secret = 'p"ss\\word'
    hide([secret, "abc"])
    try:
        raise ValueError(f"the broker says {secret}")
    except ValueError:
        logging.getLogger().exception("with %s", secret)
    logging.getLogger().info("the alphabet begins with abc")
    said = out.getvalue()
    assert "ss\\" not in said
    assert said.count("********") == 2
    assert "begins with abc" in said, "what is so short is an ordinary word"
    assert masked(secret) == "********"


def test_text_is_for_people() -> None:
    out = io.StringIO()
    configure("text", out)
    logging.getLogger("stream.test").info("ready")
    assert out.getvalue().endswith("INFO    stream.test: ready\n")


def test_a_client_that_repeats_itself_is_heard_once() -> None:
    repeats = Repeats()

    def passes(message: str, created: float) -> bool:
        record = logging.LogRecord("stream.librdkafka", logging.ERROR, "", 0, message, None, None)
        record.created = created
        return bool(repeats.filter(record))

    assert passes("broker 1 down after 7ms", 100.0)
    assert not passes("broker 1 down after 12ms", 101.0)
    assert passes("authentication failed", 101.0)
    assert passes("broker 1 down after 7ms", 131.0)
    configure("text", io.StringIO())
    configure("text", io.StringIO())
    assert [type(one) for one in logging.getLogger("stream.librdkafka").filters] == [Repeats]
