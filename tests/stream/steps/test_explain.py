"""What a finding shows of its event."""

import numpy as np

from stream.core import Core
from stream.inputs import Outcome
from stream.state.schema import KINDS, NOVELTY, SEQUENCE, TOOL_NOVELTY, VOLUME
from stream.steps.content import ROLES, TOOL, USER
from stream.steps.explain import anomaly
from stream.steps.scored import Scored
from tests.doubles import WordEmbedder
from tests.stream.releases import release
from tests.stream.streams import SETTINGS, cut, run, stream

ROLE_OF = {NOVELTY: ROLES[USER], TOOL_NOVELTY: ROLES[TOOL]}


def test_what_no_text_caused_shows_first_what_the_rarest_signal_of_text_speaks_of() -> None:
    """The release reads nothing, so that of text there is its novelty alone, of users' or of tools'."""
    shown: list[tuple[str, str]] = []

    def watch(scored: Scored, _: Outcome) -> None:
        for at, event in enumerate(scored.placed.live.tolist()):
            p = scored.scores.p[at]
            found = anomaly(scored, event, at)
            rarest = min(ROLE_OF, key=p.__getitem__)
            # Where neither has anything to say, or both say the same, it may be either.
            leading = int(scored.scores.leading[at])
            if leading not in (SEQUENCE, VOLUME) or p[rarest] == 1 or np.ptp(p[list(ROLE_OF)]) == 0:
                continue
            shown.append((found.evidence[0].role, ROLE_OF[rarest]))

    run(Core(SETTINGS, release(), WordEmbedder(), watch=watch), cut(stream(3, 400), 50))
    assert {wanted for _, wanted in shown} == {ROLES[USER], ROLES[TOOL]}
    assert [role for role, _ in shown] == [wanted for _, wanted in shown]


def test_a_finding_is_titled_by_what_weighs_most_and_its_cause_is_the_rarest_as_its_records_tell() -> None:
    """Exceptions from verdicts go by the rarest signal of the records, whatever weighs more."""
    differ: list[bool] = []

    def watch(scored: Scored, _: Outcome) -> None:
        for at, event in enumerate(scored.placed.live.tolist()):
            found = anomaly(scored, event, at)
            rarest = int(scored.scores.p[at].argmin())
            differ.append(int(scored.scores.leading[at]) != rarest)
            assert found.cause == KINDS[rarest]

    run(Core(SETTINGS, release(), WordEmbedder(), watch=watch), cut(stream(3, 400), 50))
    assert any(differ)
