"""The embedder, the tagger and the transformer that the settings name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from models.embedder import StaticEmbedder, WeightsError
from models.token_tagger import TokenTagger
from stream.config import EmbedderSettings, Settings, TransformerSettings
from stream.errors import StateError, UsageError
from stream.release import Release

if TYPE_CHECKING:
    from models.minilm import MiniLM

_DEVICES = ("auto", "cpu", "cuda")


def load_embedder(settings: EmbedderSettings) -> StaticEmbedder:
    """Weights from `embedder.path`, or those in the package, on `embedder.device`.

    Raises
    ------
    UsageError
        When this version has no such embedder or device.
    StateError
        When the weights are missing or damaged.
    """
    if settings.name != "static-minilm-256":
        raise UsageError(
            f"embedder.name must be static-minilm-256; got {settings.name!r}. Set TIDEGATE_EMBEDDER__NAME."
        )
    device = settings.device.partition(":")[0]
    if device not in _DEVICES:
        raise UsageError(
            f"embedder.device must be {', '.join(_DEVICES)} or cuda:N; got {settings.device!r}. "
            "Set TIDEGATE_EMBEDDER__DEVICE."
        )
    path = Path(settings.path) if settings.path else None
    try:
        if device == "auto":
            return StaticEmbedder.load(path, "auto")
        return StaticEmbedder.load(path, "cuda" if device == "cuda" else "cpu")
    except WeightsError as error:
        raise StateError(
            f"embedder.path {settings.path or '(packaged)'}: {error} Set TIDEGATE_EMBEDDER__PATH."
        ) from error


def load_tagger(settings: Settings, vocabulary: Sequence[str]) -> TokenTagger | None:
    """The packaged tagger, for bags of `vocabulary`'s ids, where training is to have it.

    Raises
    ------
    StateError
        When its weights are missing, damaged or for another vocabulary.
    """
    if not settings.learning.tagger:
        return None
    try:
        return TokenTagger.load(len(vocabulary))
    except WeightsError as error:
        raise StateError(f"{error} Or set TIDEGATE_LEARNING__TAGGER=false.") from error


def load_transformer(settings: TransformerSettings, vocabulary: Sequence[str]) -> MiniLM:
    """MiniLM from `transformer.path`, or of the installed package, for bags of `vocabulary`'s ids.

    Raises
    ------
    StateError
        When the weights are missing, damaged or another model's, or the device is not there.
    """
    # It imports torch, which takes seconds.
    from models.minilm import MiniLM

    path = Path(settings.path) if settings.path else None
    try:
        return MiniLM.load(path, vocabulary, device=settings.device)
    except WeightsError as error:
        raise StateError(
            f"transformer.path {settings.path or '(packaged)'}: {error} Or set TIDEGATE_TRANSFORMER__MODE=off."
        ) from error


def as_configured(release: Release, settings: Settings, vocabulary: Sequence[str]) -> Release:
    """The release with the transformer that the settings ask for, if they do.

    Raises
    ------
    StateError
        When it was not calibrated with the stage as it is configured, or the weights are not to be had.
    """
    asked, second = settings.transformer.threshold, release.texts.second
    trained = second.gate if second is not None else None
    if asked != trained:
        raise StateError(
            f"release {release.name}: transformer.mode and transformer.gate must be {_named(trained)}, as it was "
            f"trained and calibrated; got {_named(asked)}. Set TIDEGATE_TRANSFORMER__MODE and "
            "TIDEGATE_TRANSFORMER__GATE so, or train another with these."
        )
    return looking_again(release, settings, vocabulary)


def looking_again(release: Release, settings: Settings, vocabulary: Sequence[str]) -> Release:
    """The release with the transformer that it was trained with, whatever mode the settings have: for a replay.

    Raises
    ------
    StateError
        When the weights are not to be had, or are not those it was trained with, or its tagger reads other tokens.
    """
    tagger = release.texts.tagger
    if tagger is not None and tagger.vocabulary_size != len(vocabulary):
        raise StateError(
            f"release {release.name}: its tagger must be for the embedder's vocabulary of {len(vocabulary):,} tokens; "
            f"it is for one of {tagger.vocabulary_size:,}. Make it anew with 'tidegate train'."
        )
    if release.texts.second is None:
        return release
    try:
        texts = release.texts.looking_again(load_transformer(settings.transformer, vocabulary))
    except ValueError as error:
        raise StateError(f"release {release.name}: {error} Make it anew with 'tidegate train'.") from error
    return replace(release, texts=texts)


def _named(gate: float | None) -> str:
    """How the settings say it.

    >>> _named(None), _named(-math.inf), _named(1.5)
    ('off', 'all', 'gated at 1.5')
    """
    if gate is None:
        return "off"
    return "all" if gate == -math.inf else f"gated at {gate:g}"
