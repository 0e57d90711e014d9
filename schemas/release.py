"""Release v1: a release that may be served, on the compacted `genai.model.releases.v1`."""

from __future__ import annotations

from typing import Annotated

import msgspec


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What is announced of a release; its manifest, found at `uri`, is the truth."""

    release: str
    parent: str | None
    space_id: str
    """Embedder's weights, pooling, length and segmentation."""
    feature_schema: str
    state_schema: str
    manifest_sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    uri: str
    created_time_ms: int
    git_revision: str | None = None
    metrics: dict[str, float] = {}
