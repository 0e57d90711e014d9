"""The embedder that the settings name."""

from __future__ import annotations

from pathlib import Path

from models.embedder import StaticEmbedder, WeightsError
from stream.config import EmbedderSettings
from stream.errors import StateError, UsageError

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
