"""An explanation on a terminal. Text from traffic is shown as it is, never read as markup."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

SEGMENTS_SHOWN = 12
"""Of each role, the strangest; `--json` has all."""
FEATURES_SHOWN = 8
_WIDTH = 120
_BAR = 20
_DECADES = 8
_COLOURS = {"finding": "bold red", "none": "green", "duplicate": "dim"}


def render(told: dict[str, Any]) -> None:
    """Print an explanation to stdout, 120 columns wide where that is no terminal."""
    terminal = sys.stdout.isatty()
    console = Console(file=sys.stdout, width=None if terminal else _WIDTH, markup=False, highlight=False, emoji=False)
    console.print(_head(told))
    console.print(_signals(told["signals"]))
    if told["segments"]:
        console.print(Group(*_segments(told["segments"])))
    if told["features"]:
        console.print(_features(told["features"]))
    if told.get("note"):
        console.print(Text(told["note"], "dim"))


def _head(told: dict[str, Any]) -> Panel:
    decision = told["decision"]
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(told):
        facts.add_row(Text(name, "dim"), Text(value))
    verdict = Text.assemble((decision, _COLOURS.get(decision, "bold yellow")), "  ", told.get("title") or "")
    by = "replayed" if told["told_by"] == "replay" else f"told by its {told['told_by']}"
    return Panel(
        Group(verdict, Text(told["why"]), Text(""), facts), box=box.ROUNDED, title=Text(by), title_align="right"
    )


def _facts(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "event", told["event_id"]
    yield "tenant", f"{told['tenant']}, its event {told['ordinal']}"
    yield "session", told["session"] + (f", turn {told['turn']}" if told.get("turn") else "")
    place = f"partition {told['partition']}, offset {told['offset']}"
    yield "time", f"{_time(told['event_time_ms'])}{_flags(told)}, {place}"
    yield "release", f"{told['release']}; learned: {told['learned']}"
    if told.get("techniques"):
        yield "ATLAS", ", ".join(told["techniques"])
    yield from told.get("observables", ())
    if finding := told.get("finding"):
        events = f"{finding['events']} event{'s' if finding['events'] != 1 else ''}"
        about = f"{finding['severity']}, of the {finding['entity_type']}, {events}, {finding['state'].lower()}"
        yield "finding", f"{finding['uid']}: {about}"


def _flags(told: dict[str, Any]) -> str:
    return "".join(
        f", {said}" for name, said in (("late", "late"), ("clamped", "dated ahead, moved back")) if told.get(name)
    )


def _signals(signals: list[dict[str, Any]]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, title=Text("Signals, the rarest first", "bold"), title_justify="left", expand=True
    )
    for name, justify in (("signal", "left"), ("value", "right"), ("normal", "right"), ("p", "right")):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("rarity", no_wrap=True, min_width=_BAR)
    table.add_column("what", ratio=1)
    for signal in signals:
        usual = signal.get("baseline")
        count = signal.get("baseline_count")
        said = [signal.get("pattern") or ""]
        if usual is not None:
            said.append(
                f"normal: {signal.get('baseline_pattern') or 'baseline'}"
                + (f", {count} of its own" if count is not None else "")
            )
        p = signal["p"]
        table.add_row(
            Text(signal["name"]),
            Text(f"{signal['value']:.4g}"),
            Text("" if usual is None else f"{usual:.4g}"),
            Text("" if p is None else f"{p:.2g}"),
            _bar(p),
            Text("; ".join(part for part in said if part), "dim"),
        )
    return table


def _bar(p: float | None) -> Text:
    """Decades of rarity, full at eight."""
    decades = 0.0 if p is None or p >= 1 else _DECADES if p <= 0 else min(_DECADES, -math.log10(p))
    full = round(decades / _DECADES * _BAR)
    return Text.assemble(("█" * full, "red" if decades >= 2 else "yellow"), ("·" * (_BAR - full), "dim"))


def _segments(segments: list[dict[str, Any]]) -> Iterator[Any]:
    """New text by role, in the order of the messages."""
    yield Text("New segments, the strangest of each role marked", "bold")
    for role in dict.fromkeys(segment["role"] for segment in segments):
        mine = [segment for segment in segments if segment["role"] == role]
        strange = _strangeness(mine)
        shown = sorted(range(len(mine)), key=lambda i: (not mine[i]["strangest"], -strange[i], i))
        kept = sorted(shown[:SEGMENTS_SHOWN])
        left = len(mine) - len(kept)
        table = Table(box=None, show_header=False, expand=True, padding=(0, 1))
        for width in (1, 5, 10):
            table.add_column(no_wrap=True, min_width=width)
        table.add_column(ratio=1, overflow="fold")
        for i in kept:
            segment, marked = mine[i], mine[i]["strangest"]
            text = Text(segment["text"], "bold reverse" if marked else "")
            where = Text(f"message {segment['message_index']}", "dim")
            table.add_row(Text("▶" if marked else "", "red"), Text(_measured(segment)), where, text)
            if marked and (normal := segment.get("normal")):
                said = f"nearest normal, at {normal['distance']:.2f}: {normal['text']}"
                table.add_row("", "", "", Text(said, "green"))
        yield Text(f"  {role}" + (f", {left} less strange left out" if left else ""), "cyan")
        yield table


def _measured(segment: dict[str, Any]) -> str:
    measures = segment.get("measures", {})
    return ", ".join(f"{name} {value:.3f}" for name, value in measures.items())


def _strangeness(segments: list[dict[str, Any]]) -> list[float]:
    """Of each of one role's segments: its measures, each as a share of the largest, summed; 1 and more is strange."""
    names = {name for segment in segments for name in segment.get("measures", {})}
    largest = {name: max(segment.get("measures", {}).get(name, 0.0) for segment in segments) for name in names}
    return [
        sum(max(0.0, value) / largest[name] for name, value in segment.get("measures", {}).items() if largest[name] > 0)
        for segment in segments
    ]


def _features(features: list[dict[str, Any]]) -> Group:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for feature in features[:FEATURES_SHOWN]:
        bar = Text("█" * round(feature["share"] * _BAR), "yellow")
        table.add_row(Text(feature["name"]), Text(f"{feature['share']:.0%}"), bar)
    return Group(Text("What the sequence model did not expect, by share of its error", "bold"), table)


def _time(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return str(ms)
