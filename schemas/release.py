"""Release v1: a release that may be served, on the compacted `genai.model.releases.v1`."""

from __future__ import annotations

from typing import Annotated

import msgspec

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
EARLIER_MAX = 16


class Announced(msgspec.Struct, frozen=True, kw_only=True):
    """Where a release is, and which manifest is meant."""

    release: str
    manifest_sha256: Sha256
    uri: str
    passed_gate: bool = False


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What is announced of a release; its manifest, found at `uri`, is the truth."""

    release: str
    parent: str | None
    space_id: str
    """Embedder's weights, pooling, length and segmentation."""
    feature_schema: str
    state_schema: str
    manifest_sha256: Sha256
    uri: str
    created_time_ms: int
    git_revision: str | None = None
    metrics: dict[str, float] = {}
    decision: str = ""
    """What the gate said of it, in a sentence."""
    promoted: bool = False
    """Whether it passed the gate, or somebody promoted it: only such a one is to be served."""
    passed_gate: bool = False
    """Whether the gate let it pass, as the trainer announced it; without that nobody promotes it but by overriding."""
    earlier: Annotated[list[Announced], msgspec.Meta(max_length=EARLIER_MAX)] = []
    """Those that this subject announced before, the latest first: compaction keeps only this record."""
