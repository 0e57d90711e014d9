"""Columns of the drift signal."""

from models.drift import DIMENSIONS, NUMBERS, OWN, PARTS
from stream.state.table import Column


def tenant_columns(signals: int) -> tuple[Column, ...]:
    """What changes with each batch: sums since the last learn point (`models.drift.Windows`), of so many signals."""
    sizes = signals + len(OWN)
    return (
        Column("drift_counts", "<i4", (sizes,)),
        Column("drift_sums", "<i4", (sizes,)),
        Column("drift_part_counts", "<i4", (len(PARTS),)),
        Column("drift_parts", "<i4", (DIMENSIONS,)),
    )


def learned_columns(signals: int) -> tuple[Column, ...]:
    """`models.drift.Watch`, with `models.drift.Drift.version` of what wrote it."""
    metrics = signals + len(OWN) + len(PARTS)
    return (
        Column("drift_version", "<i4"),
        Column("drift_slow", "<f4", (DIMENSIONS,)),
        Column("drift_detectors", "<f4", (metrics, len(NUMBERS))),
    )
