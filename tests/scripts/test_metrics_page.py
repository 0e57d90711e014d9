"""docs/metrics.md says what the code declares."""

from scripts.metrics_page import PAGE, page


def test_the_page_is_what_the_declarations_make_of_it() -> None:
    assert PAGE.read_text() == page(), "run: .venv/bin/python -m scripts.metrics_page"


def test_every_kind_of_metric_is_told_with_its_labels_and_bounds() -> None:
    text = page()
    assert "| `tidegate_lag_records` | gauge | topic, partition | Offsets between" in text
    assert "| `tidegate_litellm_truncated_total` | counter |  | Records of calls that were cut" in text
    assert "| `tidegate_records_total` | counter | topic, result | Input records" in text
    # _CANARY_SECONDS of stream/runtime/metrics.py.
    assert "| `tidegate_canary_latency_seconds` | 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60 |" in text
