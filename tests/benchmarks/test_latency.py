"""Where the time between arrival and finding is said to go."""

import pytest

from benchmarks.latency import Way, quantiles, stages
from tests.drills.soak.scrape import Scraped, parsed


def told(**batch_ms: float) -> Scraped:
    """What a service says that took ten batches of fifty records."""
    lines = ["# TYPE tidegate_stage_seconds histogram"]
    for stage, each_ms in batch_ms.items():
        lines.append(f'tidegate_stage_seconds_bucket{{stage="{stage}",le="+Inf"}} 10')
        lines.append(f'tidegate_stage_seconds_sum{{stage="{stage}"}} {each_ms / 100}')
        lines.append(f'tidegate_stage_seconds_count{{stage="{stage}"}} 10')
    lines += ["# TYPE tidegate_records counter", 'tidegate_records_total{topic="t",result="ok"} 500']
    return parsed("\n".join(lines) + "\n")


def test_the_stages_of_the_mean_add_up_to_it() -> None:
    ways = [Way(10.0, 10.06, 10.15, 10.17), Way(11.0, 11.04, 11.13, 11.17)]
    services = {"ingest": told(step=20, queue=0, commit=15), "score": told(step=30, queue=1, commit=25)}
    figures = stages(services, ways)
    parts = {name: value for name, value in figures.items() if name.startswith("mean_") and name != "mean_ms"}
    assert figures["mean_ms"] == pytest.approx(170)
    assert sum(parts.values()) == pytest.approx(170)
    assert figures["mean_ingest_wait_ms"] == pytest.approx(50 - 20)
    assert figures["mean_score_wait_ms"] == pytest.approx(90 - 15 - 30 - 1)
    assert figures["score_batch_records"] == 50


def test_of_a_hundred_latencies_the_ninety_ninth_is_p99() -> None:
    assert quantiles("score", [n / 1000 for n in range(100, 0, -1)]) == {
        "score_p50_ms": 50.0,
        "score_p95_ms": 95.0,
        "score_p99_ms": 99.0,
    }
