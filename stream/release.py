"""A release in memory: what the core scores with."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.calibration import Calibration
from models.text_models import TextModels
from models.volume import Volume


@dataclass(frozen=True, slots=True)
class Release:
    """Models, calibration and warm rows, all of one embedding space, feature schema and state schema."""

    name: str
    space_id: str
    feature_schema: str
    state_schema: str
    bank: SequenceBank
    texts: TextModels
    volume: Volume
    calibration: Calibration
    adapters: dict[str, int]
    """Tenant -> its row in the bank's adapters."""
    warm: dict[str, NDArray[Any]]
    """Columns of the tenant table, a row for each tenant of the training input."""
    warm_rows: dict[str, int]
    """Tenant -> its row there."""
    sessions_per_day: dict[str, float]
    """Tenant -> sessions a day in the training input, by which a budget is shared out."""

    @property
    def ids(self) -> tuple[str, str, str]:
        """What must be equal for a scorer to switch from one release to another without a warm-up."""
        return self.space_id, self.feature_schema, self.state_schema
