"""Does the teacher pay? Teacher, student and a student without teacher on attacks and sources that none has seen.

    python -m benchmarks.teacher

Twice: attacks held out by session, and by family of template. Thresholds are the shares of benign segments of tenants
that nothing was learnt from. Of the held-out attacks and tenants only texts count that were not learnt from. Only the
sample's training files are read; the live days stay what is reported on.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from models.attack_classifier import AttackClassifier
from models.ngrams import NGrams, token_shapes
from models.training.attack_classifier import Fit, fit_attack_classifier, texts_of
from models.training.splices import join
from models.training.teacher import Tuning
from stream.config import Settings
from stream.runtime.embedders import load_embedder
from stream.steps.content import JUDGED
from stream.training.attacks import AttackTexts, collect_attacks
from stream.training.events import arrange
from stream.training.gather import Tally, gather_files, sessions_of
from stream.training.pupils import attacks_of, figures
from stream.training.teaching import Lesson, Lessons, Teacher, teach
from stream.training.texts import TrainingTexts, collect_texts, pile_of

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
            shown, quiet = attacks_of(attacks, np.flatnonzero(~held_out)), ~np.isin(texts.tenant, tenants)
            said = texts.taken(np.flatnonzero(quiet))
            learnt = set(texts_of(shown.bags)) | set(texts_of(texts.bags.take(_judged(texts, quiet))))
            benign = _fresh(texts_of(texts.bags), _judged(texts, ~quiet), learnt)
            known = learnt | {text for row, text in enumerate(texts_of(texts.bags)) if not quiet[row]}
            attacking = _fresh(texts_of(attacks.bags), np.flatnonzero(held_out), known)
            asked = texts.bags.take(benign)
            both = join(asked, attacks.bags.take(attacking))
            begun = time.perf_counter()
            teaching = teach(said, shown, embedder.vocabulary, teacher, seed=7, also=both)
            if teaching is None:
                raise SystemExit("the sample must be enough to teach a teacher; it is not.")
            taught_s = time.perf_counter() - begun
            models = {"teacher": teaching.also.max(axis=1)}
            grams = NGrams.fit(said.bags, said.tenant, token_shapes(embedder.vocabulary))
            features = grams.features(both)
            begun = time.perf_counter()
            for name, lesson, share in [
                ("student without", Lesson(), 0.0),
                *((f"student, share {share}", Lessons(said, teaching).without(None), share) for share in given.shares),
            ]:
                pile = pile_of(said, shown, lesson)
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
                models[name] = AttackClassifier(arrays).score(features).max(axis=1)
            count = len(benign)
            for name, odds in models.items():
                found = list(figures(odds[:count], odds[count:]).values())
                rows.setdefault((protocol, name), []).append(found)
                told = " ".join(f"{figure:.3f}" for figure in found)
                counts = f"{count} benign, {len(attacking)} attacking"
                print(f"{protocol} {number}  {name:20}{told}   ({counts})", flush=True)
            print(f"   teacher {taught_s:.0f} s, students {time.perf_counter() - begun:.0f} s", flush=True)
    print("\nmean               AUROC  recall at 1 %  at 5 %")
    for (protocol, name), figures_of in rows.items():
        print(f"{protocol:10} {name:20} " + "  ".join(f"{figure:.3f}" for figure in np.mean(figures_of, axis=0)))


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
