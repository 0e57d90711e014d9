"""Publishes the JSON Schema of `report.json`: `python -m evaluation.report.schema [--check]`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import msgspec

from evaluation.report import model

PATH = Path(__file__).with_name("report.schema.json")


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12); what `model.py` says of a class or a field is its description."""
    made = msgspec.json.schema(model.Report)
    said = _descriptions(Path(model.__file__).read_text())
    for name, definition in made["$defs"].items():
        definition["description"] = " ".join(definition["description"].split())
        for field, about in definition["properties"].items():
            if text := said.get((name, field)):
                definition["properties"][field] = {"description": text, **about}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:tidegate:evaluation.v1", **made}


def _descriptions(source: str) -> dict[tuple[str, str], str]:
    """The string below each field, by class and field."""
    found = {}
    for about in ast.parse(source).body:
        if not isinstance(about, ast.ClassDef):
            continue
        for field, text in zip(about.body, about.body[1:], strict=False):
            said = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and text.value.value
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(said, str):
                found[about.name, field.target.id] = " ".join(said.split())
    return found


def rendered() -> bytes:
    """The file as it is to be."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2) + b"\n"


def main(arguments: list[str]) -> int:
    """Write the schema, or with `--check` tell whether it differs (exit code 4)."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m evaluation.report.schema [--check]", file=sys.stderr)
        return 2
    if not arguments:
        PATH.write_bytes(rendered())
    elif not PATH.exists() or PATH.read_bytes() != rendered():
        print(f"{PATH.name} is not as model.py says. Run: python -m evaluation.report.schema", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
