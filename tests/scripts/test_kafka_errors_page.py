"""docs/kafka-errors.md says what the code declares."""

from scripts.kafka_errors_page import PAGE, page


def test_the_page_is_what_the_table_makes_of_it() -> None:
    assert PAGE.read_text() == page(), "run: .venv/bin/python -m scripts.kafka_errors_page"


def test_a_code_is_told_with_its_number_and_words() -> None:
    assert "| `UNRELEASED_INSTANCE_ID` | 111 | Broker: The instance ID is still used by another member" in page()
