"""All systems that are judged: what they are called, how they are made, and where they take part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property, partial

from evaluation.features import Embedder, FeatureReader
from evaluation.systems.calibrated import Calibrated, Detector
from evaluation.systems.following import Following
from evaluation.systems.length import Length
from evaluation.systems.minilm_vectors import REMEMBERED, MiniLMVectors
from evaluation.systems.nearest import Nearest
from evaluation.systems.product import Product, Tidegate, Without
from evaluation.systems.system import System
from evaluation.systems.templates import Templates
from models.token_tagger import TokenTagger
from stream.config import Settings
from stream.errors import UsageError
from stream.release import Release
from stream.runtime.embedders import load_transformer
from stream.runtime.train_command import EFFORT
from stream.state.schema import KINDS, KNOWN_ATTACK, TOOL_KNOWN_ATTACK
from stream.training.effort import Effort
from stream.training.texts import Again
from stream.training.train import Progress

PRODUCT, LABELLED, UNTAGGED = "tidegate", "tidegate+labels", "tidegate-tagger"
_EVERYWHERE = frozenset({"paired", "splice", "session", "hard_negatives", "stream", "slices"})
_BESIDE = frozenset({"paired", "splice", "session", "stream"})
"""Where the product is compared with others."""
_OF_LABELS = frozenset({"splice", "session", "hard_negatives"})
"""Where there are attacks of families and sources to hold out."""


class Shared:
    """What several systems use, made when the first of them asks.

    Parameters
    ----------
    settings
        As of a service.
    embedder
        Of the product and of the baselines that read text.
    release
        To judge with, in place of one that is trained.
    effort
        Of the product's fits.
    again
        The transformer that looks again, where the settings have one.
    tagger
        The tagger, where the settings have one.
    processes
        Of the product's fits side by side.
    progress
        Told what training does.
    """

    def __init__(
        self,
        settings: Settings,
        embedder: Embedder,
        *,
        release: Release | None = None,
        effort: Effort = EFFORT,
        again: Again | None = None,
        tagger: TokenTagger | None = None,
        processes: int = 1,
        progress: Progress = lambda _: None,
    ) -> None:
        self.settings = settings
        self.embedder = embedder
        self.release = release
        self._tagger = tagger
        self._made = partial(
            Product, settings, embedder, effort=effort, again=again, processes=processes, progress=progress
        )

    @cached_property
    def product(self) -> Product:
        """The product that has seen no label."""
        return self._made(release=self.release, tagger=self._tagger)

    @cached_property
    def untagged(self) -> Product:
        """The product without its tagger, to be trained anew.

        Raises
        ------
        UsageError
            When it has none.
        """
        if self._tagger is None:
            raise UsageError(f"{UNTAGGED} needs a product with a tagger. Set TIDEGATE_LEARNING__TAGGER=true.")
        return self._made()

    def labelled(self) -> Product:
        """A product that is to learn attacks."""
        return self._made(labelled=True, tagger=self._tagger)

    @cached_property
    def read(self) -> FeatureReader:
        """What baselines read of events."""
        return FeatureReader(self.embedder)

    @cached_property
    def minilm(self) -> MiniLMVectors:
        """What MiniLM reads of messages."""
        return MiniLMVectors(load_transformer(self.settings.transformer, self.embedder.vocabulary).embed)


@dataclass(frozen=True, slots=True)
class Entry:
    """A system that is judged."""

    make: Callable[[Shared], System]
    """Raises `StateError` where weights that it needs are not installed."""
    protocols: frozenset[str]
    """Names of `--only`."""
    baseline: bool = False
    """Whether the product must be better."""
    seeds: int | None = None
    """Of how many seeds at most, for what would take too long; None: of all."""
    trained: bool = False
    """Whether it needs a release that is trained for it: with `--release` it takes no part."""


def _calibrated(name: str, detector: Callable[[], Detector], shared: Shared, *, learns: bool = True) -> System:
    return Calibrated(name, detector, shared.read, shared.settings.decision.session_fpr, learns=learns)


def _half_space_trees(shared: Shared) -> System:
    from evaluation.systems.half_space_trees import HalfSpaceTrees

    nominal = shared.settings.decision.session_fpr
    return Following("half_space_trees", HalfSpaceTrees, shared.read, nominal)


def _isolation_forest(shared: Shared) -> System:
    # PyOD takes five seconds to import.
    from evaluation.systems.outliers import IsolationForest

    return _calibrated("isolation_forest", IsolationForest, shared)


def _ecod(shared: Shared) -> System:
    from evaluation.systems.outliers import Ecod

    return _calibrated("ecod", Ecod, shared)


def _nearest(shared: Shared) -> System:
    return _calibrated("nearest", Nearest, shared)


def _nearest_minilm(shared: Shared) -> System:
    return _calibrated("nearest_minilm", partial(Nearest, shared.minilm, REMEMBERED), shared)


def _dense_autoencoder(shared: Shared) -> System:
    from evaluation.systems.dense_autoencoder import DenseAutoencoder

    return _calibrated("dense_autoencoder", DenseAutoencoder, shared)


def _length(shared: Shared) -> System:
    return _calibrated("length", Length, shared, learns=False)


def _templates(shared: Shared) -> System:
    return _calibrated("templates", Templates, shared, learns=False)


def _product(shared: Shared) -> System:
    return Tidegate(PRODUCT, shared.product)


def _labelled(shared: Shared) -> System:
    return Tidegate(LABELLED, shared.labelled())


def _untagged(shared: Shared) -> System:
    return Tidegate(UNTAGGED, shared.untagged)


def _without(name: str, kinds: tuple[int, ...], shared: Shared) -> System:
    return Without(name, shared.product, kinds)


_ABLATIONS = {name: (kind,) for kind, name in enumerate(KINDS)} | {"examples": (KNOWN_ATTACK, TOOL_KNOWN_ATTACK)}
"""Each signal, and all that written examples of attacks have taught."""
SYSTEMS: dict[str, Entry] = {
    PRODUCT: Entry(_product, _EVERYWHERE),
    LABELLED: Entry(_labelled, _OF_LABELS, seeds=2, trained=True),
    **{
        f"{PRODUCT}-{what}": Entry(partial(_without, f"{PRODUCT}-{what}", kinds), _BESIDE, trained=True)
        for what, kinds in _ABLATIONS.items()
    },
    UNTAGGED: Entry(_untagged, frozenset({"paired", "splice", "session"}), seeds=1, trained=True),
    "half_space_trees": Entry(_half_space_trees, _BESIDE, baseline=True),
    "isolation_forest": Entry(_isolation_forest, _BESIDE, baseline=True),
    "ecod": Entry(_ecod, _BESIDE, baseline=True),
    "nearest": Entry(_nearest, _BESIDE, baseline=True),
    "nearest_minilm": Entry(_nearest_minilm, frozenset({"paired"}), baseline=True, seeds=1),
    "dense_autoencoder": Entry(_dense_autoencoder, _BESIDE, baseline=True),
    "length": Entry(_length, _BESIDE, baseline=True),
    "templates": Entry(_templates, _BESIDE, baseline=True),
}
"""By name, in the order of reports."""


def chosen(patterns: Sequence[str]) -> frozenset[str]:
    """Names of the systems that shell patterns name, and the product, which all others are compared with.

    Raises
    ------
    UsageError
        When a pattern names none.

    Examples
    --------
    >>> sorted(chosen(["ecod", "tidegate-known*"]))
    ['ecod', 'tidegate', 'tidegate-known_attack']
    """
    named = {pattern: [name for name in SYSTEMS if fnmatchcase(name, pattern)] for pattern in patterns}
    if unknown := [pattern for pattern, names in named.items() if not names]:
        raise UsageError(f"--systems must name some of {', '.join(SYSTEMS)}; got {', '.join(unknown)}.")
    return frozenset({PRODUCT, *(name for names in named.values() for name in names)})


def taking_part(protocol: str, seed_place: int, *, released: bool, systems: Collection[str] | None = None) -> list[str]:
    """Names of the systems that a protocol judges.

    Parameters
    ----------
    seed_place
        The how-manieth seed it is, from 0.
    released
        Whether a release is given.
    systems
        Those that are wanted; None: all.

    Examples
    --------
    >>> taking_part("slices", 0, released=False)
    ['tidegate']
    """
    return [
        name
        for name, entry in SYSTEMS.items()
        if protocol in entry.protocols
        and (entry.seeds is None or seed_place < entry.seeds)
        and not (released and entry.trained)
        and (systems is None or name in systems)
    ]
