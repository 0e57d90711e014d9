"""Grafana's dashboard: its queries put to a Prometheus, and drawn."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.prometheus.local import LocalPrometheus

DASHBOARD = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "dashboards" / "tidegate.json"
_LEGEND_MAX = 8
_POINTS = 200


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel."""

    row: str
    panel: str
    expression: str
    legend: str
    unit: str


def queries(path: Path = DASHBOARD) -> list[Query]:
    """Every query of the dashboard, in its order."""
    found, row = [], ""
    for panel in json.loads(path.read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        unit = panel["fieldConfig"]["defaults"]["unit"]
        found += [
            Query(row, panel["title"], target["expr"], target["legendFormat"], unit) for target in panel["targets"]
        ]
    return found


def spelled_out(expression: str, interval: str) -> str:
    """The expression as Grafana sends it, its own variables replaced.

    >>> spelled_out("rate(x[$__rate_interval])", "20s")
    'rate(x[20s])'
    """
    return expression.replace("$__rate_interval", interval)


def without_data(prometheus: LocalPrometheus, asked: Sequence[Query], interval: str) -> list[str]:
    """Queries that are no PromQL, or return no number, each with the reason."""
    faults = []
    for query in asked:
        try:
            series = prometheus.query(spelled_out(query.expression, interval))
        except ValueError as error:
            faults.append(f"{query.panel}: {error}")
            continue
        if not any(math.isfinite(float(one["value"][1])) for one in series):
            faults.append(f"{query.panel}: {query.expression} returns {'no number' if series else 'nothing'}")
    return faults


def draw(prometheus: LocalPrometheus, asked: Sequence[Query], interval: str, seconds: float, out: Path) -> list[Path]:
    """A PNG a row of the dashboard, each panel a plot of its queries over the last `seconds`."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    end = time.time()
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for number, row in enumerate(dict.fromkeys(query.row for query in asked), 1):
        panels = list(dict.fromkeys(query.panel for query in asked if query.row == row))
        figure, axes = plt.subplots(1, len(panels), figsize=(6 * len(panels), 4), squeeze=False, layout="tight")
        for axis, panel in zip(axes[0], panels, strict=True):
            mine = [query for query in asked if (query.row, query.panel) == (row, panel)]
            lines = 0
            for query in mine:
                expression = spelled_out(query.expression, interval)
                step = max(1.0, seconds / _POINTS)
                for series in prometheus.query_range(expression, end - seconds, end, step):
                    at = [float(t) - end for t, _ in series["values"]]
                    axis.plot(at, [float(v) for _, v in series["values"]], label=_label(query.legend, series["metric"]))
                    lines += 1
            axis.set_title(f"{panel} ({mine[0].unit})", fontsize=10)
            axis.set_xlabel("seconds before now", fontsize=8)
            axis.grid(alpha=0.3)
            axis.set_ylim(bottom=0)
            if 0 < lines <= _LEGEND_MAX:
                axis.legend(fontsize=7)
        path = out / f"{number}-{re.sub(r'[^a-z]+', '-', row.lower())}.png"
        figure.suptitle(row, x=0.01, ha="left")
        figure.savefig(path, dpi=90)
        plt.close(figure)
        written.append(path)
    return written


def _label(legend: str, metric: dict[str, Any]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda name: str(metric.get(name[1], "")), legend)
