"""The gate of quality: what detects worse than recorded does not land.

Figures in `recorded.json` are means over five trainings of the version that recorded them (`measured.py --record`), on
the sample's sessions; the noise is three standard deviations of the trainings.
"""

import json

import pytest

from tests.evaluation.quality.measured import RECORDED, measured, worse


@pytest.mark.timeout(3600)
def test_nothing_is_detected_worse_on_the_sample_than_was_recorded() -> None:
    assert worse(measured(), json.loads(RECORDED.read_text())) == []
