"""Does the teacher pay? Teacher, student and a student without teacher on attacks and sources that none has seen.

    python -m benchmarks.teacher

Twice: attacks held out by session, and by family of template. Thresholds are the shares of benign segments of tenants
that nothing was learnt from. Of the held-out attacks and tenants only texts count that were not learnt from. Then once
more on half of these attacks' sessions, where the others were in the traffic and nobody has judged them: they count as
benign there, but for what the teacher says of them. Only the sample's training files are read.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from models.attack_classifier import AttackClassifier
from models.embedder import StaticEmbedder
from models.ngrams import Features, NGrams, token_shapes
from models.training.attack_classifier import Fit, fit_attack_classifier, texts_of
from models.training.splices import join
from models.training.teacher import Tuning
from models.wordpiece import TokenBags
from stream.config import Settings
from stream.runtime.embedders import load_embedder
from stream.steps.content import JUDGED, USER
from stream.training.attacks import AttackTexts, collect_attacks
from stream.training.events import arrange
from stream.training.gather import Tally, gather_files, sessions_of
from stream.training.pupils import attacks_of, figures
from stream.training.said import TrainingTexts, collect_texts
from stream.training.teaching import Lesson, Teacher, Teaching, teach
from stream.training.texts import pile_of

ATTACKS, TRAFFIC = Path("sample/attacks.jsonl.gz"), Path("sample/train.jsonl.gz")


def main() -> None:
    """Print a row for each protocol and model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=("session", "family"), nargs="+", default=["session", "family"])
    parser.add_argument("--splits", type=int, default=3, help="of each protocol")
    parser.add_argument("--runs", type=int, default=3, help="splits that are run")
    parser.add_argument("--nproc", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.5], help="of a student's targets, its teacher's")
    parser.add_argument("--keep", type=Path, help="where teachers are kept from one run to the next")
    given = parser.parse_args()
    settings = Settings()
    embedder = load_embedder(settings.embedder)
    attacks = collect_attacks([ATTACKS], embedder, settings)
    events = arrange(gather_files([TRAFFIC], "auto", settings, Tally()), settings.core.future_ms)
    texts = collect_texts(events, embedder, settings)
    if attacks is None:
        raise SystemExit(f"{ATTACKS} must hold attacks; it holds none.")
    tuning = Tuning(nproc=given.nproc, epochs=given.epochs, examples_max=given.examples, layers=given.layers)
    rows: dict[tuple[str, str], list[list[float]]] = {}
    with TemporaryDirectory() as temporary:
        teacher = Teacher(given.keep or Path(temporary), tuning)
        for protocol, number, held_out, tenants in _splits(attacks, len(events.tenants), given.splits):
            if protocol not in given.protocol or number >= given.runs:
                continue
            for what, counts, found in _split(texts, attacks, held_out, tenants, embedder, teacher, given.shares):
                for name, values in found.items():
                    rows.setdefault((protocol + what, name), []).append(values)
                    print(f"{protocol}{what} {number}  {name:20}{_row(values)}   ({counts})", flush=True)
    print("\nmean               AUROC  recall at 1 %  at 5 %")
    for (protocol, name), values_of in rows.items():
        print(f"{protocol:24} {name:20} {_row(np.mean(values_of, axis=0).tolist())}")


def _row(values: Sequence[float]) -> str:
    return "  ".join(f"{value:.3f}" for value in values)


def _split(
    texts: TrainingTexts,
    attacks: AttackTexts,
    held_out: NDArray[np.bool_],
    tenants: NDArray[np.int64],
    embedder: StaticEmbedder,
    teacher: Teacher,
    shares: Sequence[float],
) -> Iterator[tuple[str, str, dict[str, list[float]]]]:
    """What is measured, on how much, and figures by model; without the attacks `held_out`, and without `tenants`."""
    shown, quiet = attacks_of(attacks, np.flatnonzero(~held_out)), ~np.isin(texts.tenant, tenants)
    said = texts.taken(np.flatnonzero(quiet))
    names = texts_of(texts.bags)
    learnt = set(texts_of(shown.bags)) | {names[row] for row in _judged(texts, quiet).tolist()}
    benign = _fresh(names, _judged(texts, ~quiet), learnt)
    known = learnt | {name for row, name in enumerate(names) if not quiet[row]}
    attacking = _fresh(texts_of(attacks.bags), np.flatnonzero(held_out), known)
    both = join(texts.bags.take(benign), attacks.bags.take(attacking))
    teaching = teach(said, shown, embedder.vocabulary, teacher, seed=7, also=both)
    if teaching is None:
        raise SystemExit("the sample must be enough to teach a teacher; it is not.")
    grams = NGrams.fit(said.bags, said.tenant, token_shapes(embedder.vocabulary))
    count = len(benign)

    def measured(told: Told, places: NDArray[np.int64]) -> tuple[str, dict[str, list[float]]]:
        rows = np.concatenate([np.arange(count), count + places])
        features = grams.features(both.take(rows))
        odds = {
            "teacher": teaching.also[rows].max(axis=1),
            "student, no teacher": _student(told.texts, shown, Lesson(), grams, 0.0, features),
        }
        for share in shares:
            lesson = Lesson(told.teaching)
            odds[f"student, share {share}"] = _student(told.texts, shown, lesson, grams, share, features)
        found = {name: list(figures(own[:count], own[count:]).values()) for name, own in odds.items()}
        return f"{count} benign, {len(places)} attacking", found

    yield "", *measured(Told(said, teaching), np.arange(len(attacking)))
    # Half of these attacks' sessions were in the traffic, and nobody has judged them.
    sessions = np.unique(np.array(attacks.group)[attacking], return_inverse=True)[1]
    unjudged = np.flatnonzero(sessions % 2 == 0)
    told = _with_unjudged(said, teaching, attacks.bags.take(attacking[unjudged]), count + unjudged)
    yield ", half unjudged", *measured(told, np.flatnonzero(sessions % 2 == 1))


@dataclass(frozen=True, slots=True)
class Told:
    """Traffic, and what a teacher says of it."""

    texts: TrainingTexts
    teaching: Teaching


def _with_unjudged(texts: TrainingTexts, teaching: Teaching, bags: TokenBags, also: NDArray[np.int64]) -> Told:
    """The traffic with segments that nobody has judged, of all tenants' users, and what the teacher says of them."""
    count = len(also)
    owners = np.resize(np.unique(texts.tenant), count)
    more = TrainingTexts(
        join(texts.bags, bags),
        np.concatenate([texts.role, np.full(count, USER, texts.role.dtype)]),
        np.concatenate([texts.tenant, owners]),
        np.concatenate([texts.folds, np.full(count, texts.folds.max())]),
    )
    return Told(more, replace(teaching, texts=np.concatenate([teaching.texts, teaching.also[also]])))


def _student(
    texts: TrainingTexts, attacks: AttackTexts, lesson: Lesson, grams: NGrams, share: float, features: Features
) -> NDArray[np.float32]:
    """Its largest log-odds of the segments."""
    pile = pile_of(texts, attacks, lesson)
    arrays = fit_attack_classifier(
        pile.bags,
        pile.labels,
        pile.source,
        pile.group,
        grams,
        seed=7,
        tool=pile.tool,
        taught=pile.taught,
        how=Fit(taught=share),
    )
    odds: NDArray[np.float32] = AttackClassifier(arrays).score(features).max(axis=1)
    return odds


def _splits(
    attacks: AttackTexts, tenants: int, count: int
) -> Iterator[tuple[str, int, NDArray[np.bool_], NDArray[np.int64]]]:
    """Protocol, its split, which segments of attacks are held out, and which tenants."""
    family_of = {session.session: _family(session.attack_family or "") for session in sessions_of(ATTACKS)}
    families = np.array([family_of[group] for group in attacks.group])
    rng = np.random.default_rng(7)
    for protocol, key in (("session", np.array(attacks.group)), ("family", families)):
        names = np.unique(key)
        part = dict(zip(names.tolist(), (rng.permutation(len(names)) % count).tolist(), strict=True))
        own = rng.permutation(tenants) % count
        for number in range(count):
            held_out = np.array([part[name] == number for name in key.tolist()])
            yield protocol, number, held_out, np.flatnonzero(own == number)


def _family(family: str) -> str:
    """In-the-wild jailbreaks are one family, whoever collected them."""
    return "jailbreak.in_the_wild" if family.endswith("in_the_wild") else family


def _judged(texts: TrainingTexts, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.flatnonzero(chosen & np.isin(texts.role, JUDGED))


def _fresh(names: list[bytes], rows: NDArray[np.int64], known: set[bytes]) -> NDArray[np.int64]:
    """The first row of each text that is not known."""
    first = {names[row]: row for row in reversed(rows.tolist()) if names[row] and names[row] not in known}
    return np.sort(np.array(list(first.values()), np.int64))


if __name__ == "__main__":
    main()
