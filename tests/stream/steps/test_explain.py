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
            if found.cause not in (KINDS[SEQUENCE], KINDS[VOLUME]) or p[rarest] == 1 or np.ptp(p[list(ROLE_OF)]) == 0:
                continue
            shown.append((found.evidence[0].role, ROLE_OF[rarest]))

    run(Core(SETTINGS, release(), WordEmbedder(), watch=watch), cut(stream(3, 400), 50))
    assert {wanted for _, wanted in shown} == {ROLES[USER], ROLES[TOOL]}
    assert [role for role, _ in shown] == [wanted for _, wanted in shown]
