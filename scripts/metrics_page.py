"""Writes docs/metrics.md from the declarations in stream/runtime/metrics.py; --check only compares."""

import sys
from collections.abc import Callable

from prometheus_client import CollectorRegistry

from scripts.readme_tables import ROOT, Declared, declared
from stream.runtime.metrics import CanaryMetrics, FeedbackMetrics, Metrics, TrainerMetrics
from tidegate.gateway_log import GatewayMetrics

PAGE = ROOT / "docs" / "metrics.md"
_HEAD = """# Metrics

What `/metrics` of each process exports; made by `scripts/metrics_page.py` from `stream/runtime/metrics.py`, where every
metric is declared once, but for a gateway's own, which are declared in `tidegate/gateway_log.py`. No metric carries a
tenant, a key or a session as a label. The dashboard `deploy/grafana/dashboards/tidegate.json` shows them,
`deploy/alerts.yml` watches them, and [the runbook](runbook.md#alerts) says what each alert asks for.
"""
_PROCESSES: dict[str, Callable[[], object]] = {
    "`tidegate ingest`, `tidegate score`": Metrics,
    "`tidegate feedback`": FeedbackMetrics,
    "`tidegate trainer`": TrainerMetrics,
    "`tidegate canary`": CanaryMetrics,
    "LiteLLM's proxy, with `tidegate.litellm.tidegate_logger`": lambda: GatewayMetrics(CollectorRegistry()),
}


def main() -> int:
    """Bring the page up to date; with --check 1 when it was not."""
    new = page()
    if "--check" in sys.argv:
        return int(not PAGE.is_file() or PAGE.read_text() != new)
    PAGE.write_text(new)
    return 0


def page() -> str:
    """The page, from what is declared."""
    parts = [_HEAD]
    for title, holder in _PROCESSES.items():
        parts += [f"## {title}\n", _table(list(declared(holder)))]
    parts += ["## Buckets\n", _buckets(list(declared()))]
    return "\n".join(parts)


def _table(metrics: list[Declared]) -> str:
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    rows += [f"| `{m.name}` | {m.kind} | {', '.join(m.labels)} | {m.sentence} |" for m in metrics]
    return "\n".join(rows) + "\n"


def _buckets(metrics: list[Declared]) -> str:
    rows = ["| histogram | upper bounds, seconds |", "|---|---|"]
    rows += [f"| `{m.name}` | {', '.join(f'{bound:g}' for bound in m.buckets)} |" for m in metrics if m.buckets]
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.exit(main())
