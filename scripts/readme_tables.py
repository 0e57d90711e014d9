"""Writes README's tables of configuration keys and metrics from their declarations; --check only compares."""

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from stream.config import Settings
from stream.runtime.metrics import HOLDERS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
_HIDDEN = {"origins"}


def main() -> int:
    """Bring README up to date; with --check 1 when it was not."""
    text = README.read_text()
    new = _between(_between(text, "config", config_table()), "metrics", metrics_table())
    if "--check" in sys.argv:
        return int(new != text)
    README.write_text(new)
    return 0


def config_table() -> str:
    """A row for each key: default and meaning, as `stream/config.py` declares them."""
    settings = Settings()
    documented = _documented()
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for section in (name for name in settings.__dataclass_fields__ if name not in _HIDDEN):
        values = getattr(settings, section)
        for key in values.__dataclass_fields__:
            meaning = documented[type(values).__name__, key]
            rows.append(f"| `{section}.{key}` | `{_shown(getattr(values, key))}` | {meaning} |")
    return "\n".join(rows)


def metrics_table() -> str:
    """A row for each metric, as `stream/runtime/metrics.py` declares it."""
    rows = ["| metric | labels | meaning |", "|---|---|---|"]
    rows += [f"| `{d.name}` | {', '.join(d.labels)} | {d.sentence} |" for d in declared()]
    return "\n".join(rows)


@dataclass(frozen=True)
class Declared:
    """One metric, as its declaration says."""

    name: str
    kind: str
    labels: tuple[str, ...]
    sentence: str
    buckets: tuple[float, ...]
    """Upper bounds of a histogram's, in seconds."""


def declared(*holders: Callable[[], object]) -> Iterator[Declared]:
    """Every metric of `holders`, all where none is named, in the order of their declaration; one of several once."""
    told = set()
    for metric in (metric for holder in holders or HOLDERS for metric in vars(holder()).values()):
        if isinstance(metric, MetricWrapperBase) and metric._name not in told:  # noqa: SLF001 -- it has no public name
            told.add(metric._name)  # noqa: SLF001
            for family in metric.describe():
                name = f"{family.name}_total" if family.type == "counter" else family.name
                buckets = tuple(metric._kwargs.get("buckets", ()))  # noqa: SLF001 -- none of these has a public name
                yield Declared(name, family.type, tuple(metric._labelnames), family.documentation, buckets)  # noqa: SLF001


def _documented() -> dict[tuple[str, str], str]:
    """(class, key) -> the sentence that follows the key."""
    found = {}
    for node in ast.parse((ROOT / "stream" / "config.py").read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for key, said in zip(node.body, node.body[1:], strict=False):
            if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name) and isinstance(said, ast.Expr):
                found[node.name, key.target.id] = " ".join(str(ast.literal_eval(said.value)).split())
    return found


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value or '""'
    return "{}" if value == {} else "[]" if value == () else str(value)


def _between(text: str, name: str, table: str) -> str:
    start, end = f"<!-- {name}: scripts/readme_tables.py -->\n", f"\n<!-- /{name} -->"
    before, rest = text.split(start)
    return before + start + table + end + rest.split(end, 1)[1]


if __name__ == "__main__":
    sys.exit(main())
