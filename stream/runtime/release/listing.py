"""`tidegate release list`, `show`, `diff` and `verify`: what there is to be served, and what it is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import orjson

from schemas.manifest import Manifest, TrainingInput
from schemas.safe_text import safe_text
from stream.config import Settings
from stream.runtime.release.announce import require_signed
from stream.runtime.release.catalog import Known, Told, ask_broker, catalog, trust_in
from stream.runtime.release.registry import Registry, manifest_sha256, without_trust
from stream.runtime.release.words import Node, counted, ranges, table, time_of
from stream.runtime.release_store import load_release, read_manifest

_DECISION_CHARS = 100
_TEXT_CHARS = 1_000
_FINDINGS_SHOWN = 20
_OPTIONS = orjson.OPT_SORT_KEYS


def run_list(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print every release that is known."""
    told = ask_broker(settings)
    known = catalog(settings, told)
    if arguments.json:
        plain = {
            "directory": settings.release.directory,
            "broker": told.unasked or None,
            "releases": [_plain(each) for each in known],
        }
        print(orjson.dumps(plain, option=_OPTIONS).decode())
        return 0
    if known:
        heads = ("release", "created", "parent", "signature", "alias", "partitions", "gate's decision")
        print("\n".join(table([heads, *map(_row, known)])))
    else:
        print(f"No release in {settings.release.directory} (release.directory), and none is announced.")
    for note in _notes(known, told):
        print(note)
    return 0


def _row(known: Known) -> tuple[str, ...]:
    manifest, said = known.manifest, known.said
    created = manifest.created_ms if manifest is not None else said.created_time_ms if said is not None else -1
    parent = manifest.parent if manifest is not None else said.parent if said is not None else None
    return (
        known.name,
        time_of(created),
        parent or "-",
        known.trust,
        known.alias or "-",
        ranges(known.partitions),
        safe_text(_decision(known), _DECISION_CHARS),
    )


def _decision(known: Known) -> str:
    if known.manifest is None:
        where = "not here" if known.path is None else "damaged"
        return f"{where}: {known.fault}"
    if known.said is not None:
        return known.said.decision or ("promoted" if known.said.promoted else "announced")
    return "announced before" if known.announced is not None else "-"


def _notes(known: list[Known], told: Told) -> Iterator[str]:
    if told.unasked:
        yield f"\nThe broker was not asked, so what is announced and served is not shown: {told.unasked}"
    elif not told.served:
        yield "\nNo partition serves anything yet, as far as this journal tells."
    elif len({each.release for each in told.served.values()}) > 1:
        yield "\nPartitions serve different releases: a switch is under way, was refused, or a scorer is away."
    if any(each.trust == "signed" for each in known):
        yield "\nsigned: by a key of which nothing is said here; set release.trusted_keys to the keys that count."


def _plain(known: Known) -> dict[str, Any]:
    manifest = known.manifest
    return {
        "release": known.name,
        "path": str(known.path) if known.path is not None else None,
        "fault": known.fault or None,
        "signature": known.trust,
        "alias": known.alias or None,
        "partitions": known.partitions,
        "created_ms": manifest.created_ms if manifest is not None else None,
        "parent": manifest.parent if manifest is not None else None,
        "metrics": manifest.metrics if manifest is not None else None,
        "announced": msgspec.to_builtins(known.announced) if known.announced is not None else None,
        "promoted": known.said.promoted if known.said is not None else None,
        "decision": known.said.decision if known.said is not None else None,
    }


# -- show --------------------------------------------------------------------------------------------------------------


def run_show(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print a release's manifest, in words or as it is."""
    path = Registry(settings).path_of(arguments.release)
    manifest = read_manifest(path, without_trust(settings))
    if arguments.json:
        print(orjson.dumps(msgspec.to_builtins(manifest), option=_OPTIONS | orjson.OPT_INDENT_2).decode())
        return 0
    tree = Node(f"{manifest.name} in {path}")
    describe(tree, manifest, signed=trust_in(path, manifest, settings))
    tree.add(f"manifest: sha256 {manifest_sha256(path)}")
    files = tree.add(f"files: {counted(len(manifest.files), 'file')}, {_size(manifest)} bytes")
    for name, stored in sorted(manifest.files.items()):
        files.add(f"{name}: {stored.bytes} bytes, sha256 {stored.sha256}")
    tree.add(f"parent: {manifest.parent or 'none'}")
    print("\n".join(tree.lines()))
    return 0


def describe(tree: Node, manifest: Manifest, *, signed: str) -> None:
    """Say below `tree` what a manifest says, but for files and parent."""
    signature = manifest.signature
    by = f" with key {safe_text(signature.key, 64)}" if signature is not None else ""
    tree.add(f"made: {_made(manifest)}; signature: {signed}{by}")
    tree.add(
        f"ids: space_id {manifest.space_id}, feature_schema {manifest.feature_schema}, "
        f"state_schema {manifest.state_schema}"
    )
    _describe_data(tree, manifest.data)
    if manifest.metrics:
        metrics = tree.add("metrics")
        for name, value in sorted(manifest.metrics.items()):
            metrics.add(f"{name}: {value:g}")


def _made(manifest: Manifest) -> str:
    revision = manifest.git_revision or "an unknown revision"
    return f"of events up to {time_of(manifest.created_ms)}, seed {manifest.seed}, by code {revision}"


def _describe_data(tree: Node, data: TrainingInput) -> None:
    span = f"{time_of(data.first_event_ms)} to {time_of(data.last_event_ms)}"
    node = tree.add(
        f"data: {counted(data.events, 'event')} of {counted(data.sessions, 'session')} and "
        f"{counted(data.tenants, 'tenant')}, {span}; sha256 {data.events_sha256}"
    )
    for file in data.files:
        node.add(f"file {safe_text(file.name, _TEXT_CHARS)}: {file.bytes} bytes, sha256 {file.sha256}")
    for each in data.ranges:
        node.add(
            f"{each.topic}[{each.partition}]: offsets {each.from_offset} to {each.to_offset}, the last not with it"
        )
    if data.left_out or data.dead_letters:
        node.add(f"left out: {counted(data.left_out, 'session')}, {counted(data.dead_letters, 'unreadable record')}")
    if data.request_id is not None:
        node.add(f"asked for by retrain request {data.request_id}")
    labels = data.labels
    if labels is None:
        tree.add("labels: none; no verdict taught it anything")
    else:
        node = tree.add(
            f"labels: {labels.attacks} attack, {labels.benign} benign, {labels.left_out} left out; "
            f"sha256 {labels.labels_sha256}"
        )
        for each in labels.ranges:
            node.add(
                f"{each.topic}[{each.partition}]: offsets {each.from_offset} to {each.to_offset}, the last not with it"
            )
        node.add("analysts: " + (", ".join(safe_text(name, 256) for name in labels.analysts) or "none"))
        findings = node.add(f"verdicts on {counted(len(labels.findings), 'finding')}")
        for uid in labels.findings[:_FINDINGS_SHOWN]:
            findings.add(safe_text(uid, 64))
        if (more := len(labels.findings) - _FINDINGS_SHOWN) > 0:
            findings.add(f"and {more} more, which --json names")
    teacher = data.teacher
    if teacher is not None:
        node = tree.add(
            f"teacher of known_attack: {safe_text(teacher.base, 256)}, fine-tuned on {teacher.examples} segments; "
            f"sha256 {teacher.sha256}"
        )
        for name, value in sorted(teacher.metrics.items()):
            node.add(f"{name}: {value:g}")


def _size(manifest: Manifest) -> int:
    return sum(stored.bytes for stored in manifest.files.values())


# -- diff --------------------------------------------------------------------------------------------------------------


def run_diff(settings: Settings, arguments: argparse.Namespace) -> int:
    """Print what differs between two releases, and their metrics side by side."""
    registry, unasked = Registry(settings), without_trust(settings)
    a, b = (read_manifest(registry.path_of(given), unasked) for given in (arguments.a, arguments.b))
    differing = differences(a, b)
    if arguments.json:
        plain = {"a": a.name, "b": b.name, "differing": differing, "metrics": _side_by_side(a.metrics, b.metrics)}
        print(orjson.dumps(plain, option=_OPTIONS).decode())
        return 0
    print("\n".join(_diff_lines(a, b, differing)))
    return 0


def differences(a: Manifest, b: Manifest) -> dict[str, tuple[Any, Any]]:
    """What two manifests say differently: dotted key -> both values, None where one says nothing; metrics apart."""
    left, right = (dict(_flat(msgspec.to_builtins(each))) for each in (a, b))
    keys = sorted(left.keys() | right.keys())
    return {key: (left.get(key), right.get(key)) for key in keys if left.get(key) != right.get(key)}


def _flat(plain: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in plain.items():
        if not prefix and key in ("name", "signature", "metrics", "v"):
            continue
        if key == "files" and isinstance(value, list):
            value = {each["name"]: each["sha256"] for each in value}
        elif key == "files":
            value = {name: stored["sha256"] for name, stored in value.items()}
        elif key == "ranges":
            value = {
                f"{each['topic']}[{each['partition']}]": f"{each['from_offset']} to {each['to_offset']}"
                for each in value
            }
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _side_by_side(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, tuple[float | None, float | None]]:
    return {name: (a.get(name), b.get(name)) for name in sorted(a.keys() | b.keys())}


def _diff_lines(a: Manifest, b: Manifest, differing: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    if not differing and a.metrics == b.metrics:
        yield f"{a.name} and {b.name} say the same."
        return
    rows = [("", a.name, b.name)]
    rows += [
        (key, _cell(left), _cell(right)) for key, (left, right) in differing.items() if not key.startswith("files.")
    ]
    rows += [
        (f"metrics.{name}", _cell(left), _cell(right))
        for name, (left, right) in _side_by_side(a.metrics, b.metrics).items()
    ]
    yield from table(rows)
    files = sorted(key.removeprefix("files.") for key in differing if key.startswith("files."))
    same = sorted((a.files.keys() | b.files.keys()) - set(files))
    yield ""
    yield f"files that differ: {', '.join(files) or 'none'}; equal: {', '.join(same) or 'none'}"
    ids = [name for name in ("space_id", "feature_schema", "state_schema") if name in differing]
    if ids:
        yield f"A scorer cannot switch between them while it runs: {', '.join(ids)} must be equal."


def _cell(value: Any) -> str:
    """A value as a cell.

    >>> _cell(None), _cell(0.25), _cell(["a", "b"]), _cell([str(n) for n in range(9)])
    ('-', '0.25', 'a, b', '9 values')
    """
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(_cell(each) for each in value) if len(value) < 5 else f"{len(value)} values"
    return safe_text(str(value), 64)


# -- verify ------------------------------------------------------------------------------------------------------------


def run_verify(settings: Settings, arguments: argparse.Namespace) -> int:
    """Say that a release may be served by this version with these settings.

    Raises
    ------
    StateError
        When it may not.
    """
    # Its weights say which space they span; that takes a second that no other action needs.
    from stream.runtime.embedders import as_configured, load_embedder

    path = Registry(settings).path_of(arguments.release)
    manifest = read_manifest(path, settings)
    if manifest.signature is not None:
        # Where no key is trusted it has to be whole all the same: a wrong one is a sign of tampering.
        require_signed(path, settings)
    embedder = load_embedder(replace(settings.embedder, device="cpu"))
    as_configured(load_release(path, settings, embedder.space_id), settings, embedder.vocabulary)
    if manifest.signature is None:
        vouched = "unsigned: it may be given to score by path, but neither announced nor promoted"
    elif settings.release.trusted_keys:
        vouched = f"signed with key {manifest.signature.key}, which is trusted"
    else:
        vouched = f"signed with key {manifest.signature.key}, of which nothing is said: release.trusted_keys is empty"
    print(
        f"{manifest.name} in {path}: {counted(len(manifest.files), 'file')} as their hashes say; {vouched}; "
        f"ids fit this version and its settings (space_id {manifest.space_id}, feature_schema "
        f"{manifest.feature_schema}, state_schema {manifest.state_schema})."
    )
    return 0
