"""Writes docs/kafka-errors.md from the table in stream/kafka_faults.py; --check only compares."""

import sys

from confluent_kafka import KafkaError

from scripts.readme_tables import ROOT
from stream.kafka_faults import GROUPS, Group

PAGE = ROOT / "docs" / "kafka-errors.md"
_HEAD = """# Kafka's errors

What every error code of the Kafka client asks of a service; made by `scripts/kafka_errors_page.py` from
`stream/kafka_faults.py`, by which services act. The group is the label `reason` of `tidegate_kafka_retries_total`.

The table speaks where librdkafka does not: an error that it flags as fatal is exit 6, as abortable aborts the
transaction, as retriable is tried again. Exit 3 and a timed-out call (`timeout`) come before the flags: what a broker
will refuse again would be aborted for ever, and a producer whose call timed out may hang for ever. A consumer's own
faults that ask for a retry, an abort or a new producer are met by librdkafka itself, and counted.

| group | meaning | what is done |
|---|---|---|
"""


def main() -> int:
    """Bring the page up to date; with --check 1 when it was not."""
    new = page()
    if "--check" in sys.argv:
        return int(not PAGE.is_file() or PAGE.read_text() != new)
    PAGE.write_text(new)
    return 0


def page() -> str:
    """The page, from what is declared."""
    groups = "\n".join(f"| [`{g.name}`](#{g.name}) | {g.meaning} | {g.fault.value} |" for g in GROUPS)
    return _HEAD + groups + "\n\n" + "\n".join(map(_section, GROUPS))


def _section(group: Group) -> str:
    rows = [f"## {group.name}", "", f"{_capital(group.meaning)}. What is done: {group.fault.value}."]
    if group.fault.ends or group.fault.value.startswith(("commit", "close")):
        rows.append(f"The message ends with: {group.remedy}")
    rows += ["", "| code | number | librdkafka's words |", "|---|---|---|"]
    for name in group.codes:
        code = getattr(KafkaError, name)
        rows.append(f"| `{name}` | {code} | {KafkaError(code).str()} |")
    return "\n".join(rows) + "\n"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


if __name__ == "__main__":
    sys.exit(main())
