"""`splice`: one foreign message in the middle of a benign session, from an attacker or from another tenant's user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec

from evaluation.corpus import Corpus
from evaluation.draws import pick, rank, spread
from evaluation.harmless import Harmless
from evaluation.injection import family_of
from evaluation.insertion import inserted
from evaluation.placing import named, probed
from evaluation.slicing import probe_of
from evaluation.split import NO_HOSTS, Split, base_of
from evaluation.trial import Nothing, Probe, Trial
from schemas.corpus import CorpusSession, Turn

NAME = "splice"
TWIN = "twin"
Place = Literal["user", "tool"]
PLACES: tuple[Place, ...] = ("user", "tool")


def splice(corpus: Corpus, split: Split) -> Trial | Nothing:
    """Foreign attack messages in benign sessions of the test half, and beside each a harmless twin.

    The message is the one that is marked in a foreign attack, else what its user says first. As `<family>+user` it is
    the user's next message, as `<family>+tool` it stands within a tool's result; the session goes on as if nothing had
    been said. The twin (`twin+user`, `twin+tool`) is the same session with a harmless message in the same place, as
    long as the attack: what users say, or what tools return, of a tenant that was left out of learning with its source.
    The slice `place` tells the two apart, `carrier` is the tenant.

    Figures: `attacks`; `without_carrier` and `without_twin`, where no session or no harmless text was found; and
    `texts_of_learned_sources`, harmless ones whose source has been learned, for want of one that has not.
    """
    carriers = [session for own in split.hosts.values() for session in own]
    attacks = drawn_attacks(corpus, split)
    if not attacks or not carriers:
        return Nothing(NAME, NO_HOSTS if attacks else "there are no foreign attacks")
    harmless = Harmless(split)
    figures: Counter[str] = Counter(attacks=len(attacks))
    probes = list(_probes(attacks, carriers, split, harmless, figures))
    if not probes:
        return Nothing(NAME, "no foreign attack says anything that a benign session could carry")
    if all(probe.label == "attack" for probe in probes):
        return Nothing(NAME, "no other tenant says anything harmless that could stand beside an attack")
    if harmless.of_learned:
        figures["texts_of_learned_sources"] = harmless.of_learned
    return Trial(
        protocol=NAME,
        seed=split.seed,
        learn=split.learn,
        probes=probed(probes, split.seed),
        figures=dict(figures),
    )


def drawn_attacks(corpus: Corpus, split: Split) -> list[CorpusSession]:
    """Foreign attacks, at most `Caps.foreign` of each family."""
    by_family: dict[str, list[CorpusSession]] = {}
    for session in corpus.foreign:
        by_family.setdefault(family_of(session), []).append(session)
    return [
        session
        for _, own in sorted(by_family.items())
        for session in spread(own, split.caps.foreign, base_of, lambda s: rank("foreign", split.seed, s.session))
    ]


def _probes(
    attacks: Sequence[CorpusSession],
    carriers: Sequence[CorpusSession],
    split: Split,
    harmless: Harmless,
    figures: Counter[str],
) -> Iterator[Probe]:
    able = {place: _by_tenant(carriers, place) for place in PLACES}
    for attack in attacks:
        text = message(attack)
        for place in PLACES:
            if not text or not able[place]:
                figures["without_carrier"] += 1
                continue
            names = split.seed, place, attack.source, attack.session
            # The tenant first: those of many sessions would carry most otherwise.
            own = able[place][pick(sorted(able[place]), "tenant", *names)]
            carrier = pick(own, "carrier", *names)
            family = f"{family_of(attack)}+{place}"
            yield _probe(carrier, text, place, split, "attack", family, names)
            calm = harmless.unseen(place, len(text), carrier, *names)
            if not calm:
                figures["without_twin"] += 1
                continue
            yield _probe(carrier, calm, place, split, "benign", f"{TWIN}+{place}", names)


def _probe(
    carrier: CorpusSession,
    text: str,
    place: Place,
    split: Split,
    label: Literal["attack", "benign"],
    family: str,
    names: tuple[object, ...],
) -> Probe:
    turns = spliced(carrier.turns, text, place, *names)
    session = named(msgspec.structs.replace(carrier, turns=turns), label, *names)
    return probe_of(
        session,
        split,
        label=label,
        family=family,
        cluster=base_of(carrier),
        placed=[text] if label == "attack" else [],
        place=place,
        carrier=carrier.tenant or "",
    )


def message(attack: CorpusSession) -> str:
    """What an attack says: the message that is marked, else its user's first."""
    marked = [turn for turn in attack.turns if turn.payload and turn.text.strip()]
    said = marked or [turn for turn in attack.turns if turn.role == "user" and turn.text.strip()]
    return said[0].text if said else ""


def spliced(turns: Sequence[Turn], text: str, place: Place, *names: object) -> tuple[Turn, ...]:
    """`turns` with `text` as another message of the user's, before a later one or at the end; or in a tool's result."""
    if place == "tool":
        at = pick(_results(turns), "result", *names)
        host = msgspec.structs.replace(turns[at], text=inserted(turns[at].text, text, *names))
        return (*turns[:at], host, *turns[at + 1 :])
    at = pick(_openings(turns), "opening", *names)
    return (*turns[:at], Turn("user", text), *turns[at:])


def _openings(turns: Sequence[Turn]) -> list[int]:
    """Where a user could speak again: after an answer, before a user's message or at the end."""
    return [
        at
        for at in range(1, len(turns) + 1)
        if turns[at - 1].role == "assistant" and (at == len(turns) or turns[at].role == "user")
    ]


def _results(turns: Sequence[Turn]) -> list[int]:
    return [at for at, turn in enumerate(turns) if turn.role == "tool" and turn.text.strip()]


def _by_tenant(carriers: Sequence[CorpusSession], place: Place) -> dict[str, list[CorpusSession]]:
    places = _openings if place == "user" else _results
    found: dict[str, list[CorpusSession]] = {}
    for session in carriers:
        if session.tenant is not None and places(session.turns):
            found.setdefault(session.tenant, []).append(session)
    return found
