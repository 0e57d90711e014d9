"""One page about a drill: what was done to the pipeline, what waited meanwhile, and the checker's verdict."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from stream.runtime.report.figures import as_svg, styled
from tests.drills.chaos.storm import Done

_COLOURS = {
    "kill": "#c01f3a", "broker": "#6b0f1a", "transaction-coordinator": "#6b0f1a", "group-coordinator": "#6b0f1a",
    "broker-restart": "#b5651d", "zombie": "#8e5bb5", "cut": "#d99a00", "slow-network": "#d99a00",
    "slow-disk": "#1c8f8f", "join": "#5a8f29", "leave": "#5a8f29",
}  # fmt: skip
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem 1rem .2rem 0; text-align: left }
td.number { text-align: right; font-variant-numeric: tabular-nums } svg { width: 100%; height: auto }
.sound { color: #2f7d32 } .faulty { color: #c01f3a }
"""


def write_report(
    out: Path,
    runs: Mapping[str, tuple[Sequence[Done], Sequence[tuple[float, list[int]]]]],
    summary: Mapping[str, Any],
) -> Path:
    """Write `report.html` and a PNG for each run into folder `out`; the page's path.

    Parameters
    ----------
    runs
        Group protocol -> what was done, and what waited: seconds, and records before ingest and before score.
    """
    faults = summary["faults"]
    told = f"{len(faults)} faults" if faults else "0 lost, 0 twice, and scores and findings equal their replay's"
    parts = [f"<h1>Chaos, seed {summary['seed']}</h1>", f"<p class='{'faulty' if faults else 'sound'}'>{told}</p>"]
    parts += [f"<p class='faulty'>{escape(fault)}</p>" for fault in faults]
    for protocol, (done, lag) in runs.items():
        with styled():
            figure = _timeline(done, lag)
            figure.savefig(out / f"{protocol}.png", dpi=120)
            parts += [f"<h2>group.protocol = {escape(protocol)}</h2>", as_svg(figure)]
        parts.append(_table(["at", "took", "act", ""], [
            [f"{each.at_s:.0f} s", f"{each.seconds:.1f} s", each.act, each.what] for each in done
        ]))  # fmt: skip
    rows = [[name, str(value)] for name, value in summary.items() if name != "faults"]
    parts.append(_table(["figure", "value"], rows))
    page = out / "report.html"
    page.write_text(
        f"<!doctype html><meta charset='utf-8'><title>Chaos</title><style>{_STYLE}</style>{''.join(parts)}\n"
    )
    return page


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _timeline(done: Sequence[Done], lag: Sequence[tuple[float, list[int]]]) -> Figure:
    """Lag over time above, a lane for every kind of act below."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    seconds = [at for at, _ in lag]
    for number, (name, colour) in enumerate((("ingest", "#2f80c2"), ("score", "#e8590c"))):
        above.plot(seconds, [values[number] for _, values in lag], color=colour, linewidth=1.2, label=f"before {name}")
    above.set_ylabel("records that wait")
    above.set_ylim(bottom=0)
    above.legend(loc="upper left")
    kinds = [kind for kind in _COLOURS if any(each.act == kind for each in done)]
    for each in done:
        below.barh(kinds.index(each.act), max(each.seconds, 1.0), left=each.at_s, color=_COLOURS[each.act], height=0.7)
    below.set_yticks(range(len(kinds)), kinds)
    below.invert_yaxis()
    below.set_xlabel("seconds")
    return figure
