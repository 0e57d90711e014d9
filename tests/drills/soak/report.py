"""A soak as a picture, and as one page that loads nothing."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from tests.drills.soak.plan import DAYS, WARM_DAYS
from tests.drills.soak.sample import Sample
from tests.drills.soak.soak import Soak

PICTURE, PAGE = "soak.png", "report.html"
_MB = 1_000_000
_MARKED = {
    "outage": "all down, and up again",
    "promote": "another release",
    "join": "a third scorer joins",
    "leave": "it leaves",
    "kill": "SIGKILL of a scorer",
    "rollback": "the first release again",
}
Lines = Mapping[str, Sequence[float]]
"""Legend -> a value a sample."""


def write_report(soak: Soak, figures: Mapping[str, float], faults: Sequence[str], out: Path) -> None:
    """Write `soak.png` and `report.html`."""
    draw(soak, out / PICTURE)
    picture = base64.b64encode((out / PICTURE).read_bytes()).decode()
    said = "".join(f"<li>{escape(fault)}</li>" for fault in faults) or "<li>nothing</li>"
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{value:,.2f}</td></tr>" for name, value in sorted(figures.items()))
    (out / PAGE).write_text(
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Soak</title><style>"
        "body{font:15px/1.4 sans-serif;max-width:1100px;margin:2em auto}img{width:100%}"
        "td{padding:2px 12px 2px 0}td+td{text-align:right;font-variant-numeric:tabular-nums}</style>"
        f"<h1>Soak of {soak.plan.minutes:g} minutes, {DAYS} days of traffic</h1>"
        f"<p>The first {WARM_DAYS} days warm up; memory of the last day is compared with that of the first one after "
        f"them. Dashed lines are what was done meanwhile.</p><h2>Wrong</h2><ul>{said}</ul>"
        f"<img alt='Memory, lag, latency and state over time' src='data:image/png;base64,{picture}'>"
        f"<h2>Figures</h2><table>{rows}</table></html>\n"
    )


def draw(soak: Soak, path: Path) -> None:
    """A panel a measure, over minutes by the clock."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    samples = soak.samples
    minutes = [sample.after_s / 60 for sample in samples]
    panels = _panels(samples)
    figure, axes = plt.subplots(len(panels), 1, figsize=(12, 2.5 * len(panels)), sharex=True, layout="tight")
    for axis, (title, lines, logarithmic) in zip(axes, panels, strict=True):
        for name, values in lines.items():
            axis.plot(minutes, values, label=name, linewidth=1.2)
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(alpha=0.3)
        if logarithmic:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        for day in range(DAYS + 1):
            axis.axvline(day * soak.plan.day_s / 60, color="0.85", linewidth=0.8)
        axis.axvspan(0, WARM_DAYS * soak.plan.day_s / 60, color="0.95")
        for at_s, _ in soak.marks:
            axis.axvline(at_s / 60, color="tab:red", linestyle="--", linewidth=0.9)
        axis.legend(fontsize=7, loc="upper right")
    for at_s, what in soak.marks:
        text = _MARKED.get(what, what)
        coordinates = axes[0].get_xaxis_transform()
        axes[0].text(at_s / 60, 0.97, text, transform=coordinates, rotation=90, fontsize=7, va="top", ha="right")
    axes[-1].set_xlabel("minutes; grey lines are days, the grey area is warm-up")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _panels(samples: Sequence[Sample]) -> list[tuple[str, Lines, bool]]:
    """Title, lines, whether the axis is logarithmic."""
    names = list(dict.fromkeys(name for sample in samples for name in sample.processes))
    batches = list(dict.fromkeys(name for sample in samples for name in sample.batch_latency_ms))

    def by_process(measure: Callable[[Sample, str], float]) -> Lines:
        return {n: [measure(s, n) if n in s.processes else math.nan for s in samples] for n in names}

    latency = {f"record to score, {q}": [s.latency_ms.get(q, math.nan) for s in samples] for q in ("p50", "p99")}
    latency |= {f"{n}, p99 of batches": [s.batch_latency_ms.get(n, math.nan) for s in samples] for n in batches}
    return [
        ("records a second", {"sent": _rate(samples, "sent"), "scored": _rate(samples, "scored")}, False),
        ("resident memory, MB", by_process(lambda s, n: s.processes[n].rss_bytes / _MB), False),
        ("lag, records", {"all services": [s.lag for s in samples]}, False),
        ("latency, ms", latency, True),
        ("state in memory, MB", {"all scorers": [s.state_bytes / _MB for s in samples]}, False),
        ("new tenants so far", {"tenants": [float(s.tenants) for s in samples]}, False),
        ("state topic on disk, MB", {"segments": [s.state_topic_bytes / _MB for s in samples]}, False),
        ("open files", by_process(lambda s, n: s.processes[n].descriptors), False),
        ("threads", by_process(lambda s, n: s.processes[n].threads), False),
    ]


def _rate(samples: Sequence[Sample], what: str) -> list[float]:
    rates = [
        (getattr(later, what) - getattr(earlier, what)) / (later.after_s - earlier.after_s)
        for earlier, later in pairwise(samples)
    ]
    return [math.nan, *rates] if samples else []
