"""`tidegate train`: captured traffic in, a release out."""

from __future__ import annotations

import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from models.second_look import Remembering
from schemas.manifest import InputFile, InputRange, Manifest, TrainingInput
from stream.config import Settings
from stream.errors import StateError, UsageError
from stream.release import Release
from stream.runtime.embedders import load_embedder, load_tagger, load_transformer
from stream.runtime.release_store import CARD, check_replaceable, load_release, read_manifest, write_release
from stream.runtime.signing import sign
from stream.state.schema import FEATURE_SCHEMA, STATE_SCHEMA
from stream.steps.content import Embeds
from stream.training.attacks import AttackTexts, collect_attacks
from stream.training.card import Card
from stream.training.effort import Effort
from stream.training.events import Gathered, TrainingEvents, arrange
from stream.training.gather import Tally, gather_files
from stream.training.texts import Again
from stream.training.train import train

EFFORT = Effort()


SESSIONS_FEW = 100
"""Below so many held-out sessions a tail is guessed rather than measured (docs/decisions/0009)."""


def run(settings: Settings, arguments: Namespace) -> int:
    """Train on `--input` or `--topic` and write the release to `--out`.

    Raises
    ------
    TidegateError
        With the exit code that says what is wrong.
    """
    begun = time.monotonic()

    def progress(what: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s  {what}", file=sys.stderr, flush=True)

    # Whatever can be wrong is found before minutes go into fits.
    out: Path = arguments.out
    check_replaceable(out)
    if arguments.nproc < 1:
        raise UsageError(f"--nproc must be at least 1; got {arguments.nproc}.")
    if settings.release.signing_key_file:
        sign(b"", Path(settings.release.signing_key_file))
    embedder = load_embedder(settings.embedder)
    again = _again(settings, embedder)
    tagger = load_tagger(settings, embedder.vocabulary)
    parent = _parent(arguments.base, settings, embedder.space_id)
    base = _base(arguments, settings, embedder.space_id)

    tally = Tally()
    progress("reading the input")
    events, read = _events(settings, arguments, tally)
    attacks = _attacks(arguments, settings, embedder)
    trained = train(
        events,
        embedder,
        embedder.space_id,
        settings,
        seed=arguments.seed,
        labelled=tally.labelled,
        processes=arguments.nproc,
        effort=replace(EFFORT, adapter_steps=0) if arguments.task == "population" else EFFORT,
        base=base,
        adapters_only=arguments.task == "adapters",
        attacks=attacks,
        again=again,
        tagger=tagger,
        progress=progress,
    )
    data = TrainingInput(
        files=[part for part in read if isinstance(part, InputFile)],
        ranges=[part for part in read if isinstance(part, InputRange)],
        events=len(events.records),
        sessions=len(events.session_tenant),
        tenants=len(events.tenants),
        left_out=tally.left_out,
        dead_letters=tally.dead_letters.total() + events.unreadable,
        first_event_ms=events.first_ms,
        last_event_ms=events.last_ms,
        events_sha256=events.sha256,
    )
    card = Card(
        data=data,
        metrics=trained.metrics,
        parent=parent.name if parent else None,
        space_id=trained.release.space_id,
        feature_schema=trained.release.feature_schema,
        state_schema=trained.release.state_schema,
        seed=arguments.seed,
    )
    manifest = write_release(
        out,
        trained.release,
        data=data,
        metrics=trained.metrics,
        parent=parent.name if parent else None,
        seed=arguments.seed,
        git_revision=git_revision(),
        settings=settings,
        more={CARD: card.text().encode()},
    )
    if arguments.task == "adapters" and parent is not None and parent.data.events_sha256 == data.events_sha256:
        progress(
            "--base was trained on this very input: no session is held out from its backbone, and more will be found "
            "than decision.session_fpr says. Name input that came after it."
        )
    used = f"{data.events:,} events, {data.sessions:,} sessions, {data.tenants:,} tenants"
    print(f"release {manifest.name} in {out}: {used}{_not_used(data, tally)}; {time.monotonic() - begun:.1f} s")
    return 0


def _events(
    settings: Settings, arguments: Namespace, tally: Tally
) -> tuple[TrainingEvents, list[InputFile] | list[InputRange]]:
    """The events, and which input they are from."""
    future_ms = settings.core.future_ms
    if arguments.input:
        events = arrange(gather_files(arguments.input, arguments.format, settings, tally), future_ms)
        return events, [hashed(path) for path in arguments.input]
    tally.labelled = False
    gathered, read = _topic(settings, arguments)
    return arrange(gathered, future_ms), read


def _topic(settings: Settings, arguments: Namespace) -> tuple[Iterator[Gathered], list[InputRange]]:
    """Events of a range of the events topic, partition by partition, and what the range is."""
    from stream.runtime.topic_reader import TopicReader, Window

    topic: str = arguments.topic
    window = Window(arguments.from_offset, arguments.to_offset, arguments.from_time, arguments.to_time)
    reader = TopicReader(settings, "train")
    bounds = {p: bound for p, bound in reader.bounds(topic, window).items() if bound.start < bound.end}

    def records() -> Iterator[Gathered]:
        try:
            for partition, bound in sorted(bounds.items()):
                for batch in reader.read(topic, partition, bound.start, bound.end):
                    yield from map(Gathered, batch)
        finally:
            reader.close()

    read = [InputRange(topic=topic, partition=p, from_offset=b.start, to_offset=b.end) for p, b in bounds.items()]
    return records(), read


def _again(settings: Settings, embedder: Embeds) -> Again | None:
    """The transformer, where one is to look again; it reads each text once, however many fits and passes there are."""
    gate = settings.transformer.threshold
    if gate is None:
        return None
    return Again(Remembering(load_transformer(settings.transformer, embedder.vocabulary)), gate)


def _attacks(arguments: Namespace, settings: Settings, embedder: Embeds) -> AttackTexts | None:
    """Labelled attacks of the input, with --task attack-classifier."""
    if arguments.task != "attack-classifier":
        return None
    found = collect_attacks(arguments.input or [], embedder, settings)
    if found is None:
        raise UsageError(
            "--task attack-classifier needs sessions of label attack in --input, in the corpus layout; there are none."
        )
    return found


def _base(arguments: Namespace, settings: Settings, space_id: str) -> Release | None:
    """The release to go on from."""
    if arguments.base is None:
        if arguments.task == "adapters":
            raise UsageError("--task adapters needs --base: the release whose backbone they are fitted on.")
        return None
    return load_release(arguments.base, settings, space_id)


def _parent(base: str | None, settings: Settings, space_id: str) -> Manifest | None:
    """The release that this one follows: one whose place it can take."""
    if base is None:
        return None
    manifest = read_manifest(base, settings)
    ours = {"space_id": space_id, "feature_schema": FEATURE_SCHEMA, "state_schema": STATE_SCHEMA}
    for name, own in ours.items():
        if (theirs := getattr(manifest, name)) != own:
            raise StateError(
                f"--base {base}: {name} must be {own}, as this version and its settings have it; it is {theirs}. "
                "Train without --base."
            )
    return manifest


def hashed(path: Path) -> InputFile:
    """A file that was trained on, as a manifest names it."""
    digest = sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return InputFile(name=path.name, sha256=digest.hexdigest(), bytes=path.stat().st_size)


def git_revision(root: Path = Path(__file__).parents[2]) -> str | None:
    """Revision of the code, where it stands in a repository of its own."""
    if not (root / ".git").exists():
        return None
    try:
        said = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.decode("ascii", "replace").strip() or None


def _not_used(data: TrainingInput, tally: Tally) -> str:
    parts = []
    if data.sessions < SESSIONS_FEW:
        parts.append(f"fewer than {SESSIONS_FEW} sessions: twice as many may be flagged as decision.session_fpr says")
    if data.left_out:
        parts.append(f"{data.left_out:,} sessions left out as not benign")
    if data.dead_letters:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(tally.dead_letters.items()))
        parts.append(f"{data.dead_letters:,} records unreadable" + (f" ({reasons})" if reasons else ""))
    return "".join(f"; {part}" for part in parts)
