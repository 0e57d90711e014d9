"""Publishes the JSON Schemas of topics and of release manifests: `python -m schemas.publish [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from schemas.control import Control
from schemas.dead_letter import DeadLetterReference
from schemas.event import GatewayEvent
from schemas.journal import Journal
from schemas.label import Label
from schemas.manifest import Manifest
from schemas.ocsf import Finding
from schemas.release import Release
from schemas.retrain import RetrainRequest
from schemas.score import Score
from schemas.verdict import Verdict

STRUCTS: dict[str, type[msgspec.Struct]] = {
    "events.v1": GatewayEvent,
    "scores.v1": Score,
    "findings.v1": Finding,
    "controls.v1": Control,
    "journal.v1": Journal,
    "releases.v1": Release,
    "verdicts.v1": Verdict,
    "labels.v1": Label,
    "retrain.v1": RetrainRequest,
    "dead_letters.v1": DeadLetterReference,
    "manifest.v1": Manifest,
}
"""Structure of the values of each topic, by the name of its file in `topics/`, and of a release's `manifest.json`."""

FOLDER = Path(__file__).parent / "json"


def schema_of(name: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of `STRUCTS[name]`."""
    schema = msgspec.json.schema(STRUCTS[name])
    for definition in schema["$defs"].values():
        if "description" in definition:
            definition["description"] = " ".join(definition["description"].split())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": f"urn:tidegate:{name}", **schema}


def rendered(name: str) -> bytes:
    """The schema's file as it is to be."""
    return msgspec.json.format(msgspec.json.encode(schema_of(name)), indent=2) + b"\n"


def main(arguments: list[str]) -> int:
    """Write the schemas, or with `--check` tell which files differ (exit code 4)."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m schemas.publish [--check]", file=sys.stderr)
        return 2
    stale = []
    for name in STRUCTS:
        path = FOLDER / f"{name}.schema.json"
        if not arguments:
            path.write_bytes(rendered(name))
        elif not path.exists() or path.read_bytes() != rendered(name):
            stale.append(path.name)
    if stale:
        print(f"not as the structures say: {', '.join(stale)}. Run: python -m schemas.publish", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
