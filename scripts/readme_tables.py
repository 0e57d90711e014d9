"""Writes README's tables of configuration keys and metrics from their declarations; --check only compares."""

import ast
import sys
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

from stream.config import Settings
from stream.runtime.metrics import Metrics

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
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            for family in metric.describe():
                labels = ", ".join(metric._labelnames)  # noqa: SLF001 -- it has no public name
                suffix = "_total" if family.type == "counter" else ""
                rows.append(f"| `{family.name}{suffix}` | {labels} | {family.documentation} |")
    return "\n".join(rows)


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
