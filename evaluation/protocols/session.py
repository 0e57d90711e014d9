"""`session`: whole foreign attack sessions among tenants' benign ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

import msgspec

from evaluation.corpus import Corpus
from evaluation.draws import pick, rank, spread
from evaluation.harmless import Harmless, shortened
from evaluation.injection import family_of
from evaluation.placing import named, placed_on, probed
from evaluation.protocols.splice import TWIN, drawn_attacks
from evaluation.slicing import probe_of
from evaluation.split import NO_HOSTS, Split, base_of
from evaluation.trial import Nothing, Probe, Trial
from schemas.corpus import CorpusSession, Turn

NAME = "session"


def session(corpus: Corpus, split: Split) -> Trial | Nothing:
    """Foreign attack sessions, each placed on a learned tenant drawn by hash, against benign sessions.

    Benign are, of each tenant, at most `Caps.benign` sessions of the test half, and beside each attack a twin (family
    `twin`): a session of a tenant that was left out of learning with its source, placed on the same tenant, of as many
    messages as the attack and as long. What only tells whose session it is flags the twins as well.

    Attacks of a tenant's own that carry no task are judged here too, in their place, where what their user says first
    is nothing that has been learned.

    Figures: `attacks`, `placed` (of a tenant's own), `without_twin`, `texts_of_learned_sources` as in `splice`.
    """
    hosts = split.hosts
    attacks = drawn_attacks(corpus, split)
    own = [s for tenant in split.learned for s in corpus.placed.get(tenant, ()) if s.task is None and split.tests(s)]
    if not hosts or not (attacks or own):
        return Nothing(NAME, "there are no attacks that could stand as sessions of their own" if hosts else NO_HOSTS)
    harmless = Harmless(split)
    figures: Counter[str] = Counter(attacks=len(attacks), placed=len(own))
    probes = list(benign_probes(split, split.caps.benign))
    probes += [
        probe_of(named(s), split, label="attack", family=family_of(s), cluster=base_of(s))
        for s in spread(own, len(attacks) or len(own), family_of, lambda s: rank("own", split.seed, s.session))
    ]
    probes += _placed(attacks, hosts, split, harmless, figures)
    if harmless.of_learned:
        figures["texts_of_learned_sources"] = harmless.of_learned
    return Trial(
        protocol=NAME,
        seed=split.seed,
        learn=split.learn,
        probes=probed(probes, split.seed),
        figures=dict(figures),
    )


def benign_probes(
    split: Split, most: int, tenants: Sequence[str] | None = None, kind: Sequence[object] = (), source: str = ""
) -> Iterator[Probe]:
    """Benign sessions of the test half, at most `most` of each tenant, of as many tasks as there are.

    Parameters
    ----------
    tenants
        None: those that are learned. Of others all sessions are of the test half.
    kind
        What tells their names from those of another trial of the same protocol.
    source
        Of look-alikes in the same trial, as a slice: seen or unseen.
    """
    for tenant in sorted(split.learned) if tenants is None else tenants:
        own = split.test.get(tenant) or split.unseen.get(tenant, [])
        for session in spread(own, most, base_of, lambda s: rank("benign", split.seed, s.tenant, s.session)):
            probe = probe_of(named(session, *kind), split, label="benign", cluster=base_of(session))
            yield replace(probe, slices={**probe.slices, "source": source}) if source else probe


def placed_attack(attack: CorpusSession, hosts: dict[str, list[CorpusSession]], *names: object) -> CorpusSession:
    """An attack on a tenant drawn by `names`."""
    own = hosts[pick(sorted(hosts), "host", attack.source, attack.session, *names)]
    return placed_on(attack, pick(own, "beside", attack.source, attack.session, *names))


def _placed(
    attacks: Sequence[CorpusSession],
    hosts: dict[str, list[CorpusSession]],
    split: Split,
    harmless: Harmless,
    figures: Counter[str],
) -> Iterator[Probe]:
    for attack in attacks:
        placed = placed_attack(attack, hosts, split.seed)
        cluster = f"{attack.source or family_of(attack)}/{base_of(attack)}"
        yield probe_of(placed, split, label="attack", family=family_of(attack), cluster=cluster)
        names = split.seed, attack.source, attack.session
        host = pick(hosts[placed.tenant or ""], "beside the twin", *names)
        calm = harmless.session(host, *names)
        if calm is None:
            figures["without_twin"] += 1
            continue
        twin = placed_on(_alike(calm, attack, harmless, host, *names), host, *names)
        yield probe_of(twin, split, label="benign", family=TWIN, cluster=base_of(calm))


def _alike(
    calm: CorpusSession, attack: CorpusSession, harmless: Harmless, host: CorpusSession, *names: object
) -> CorpusSession:
    """A harmless session made as long as an attack: its first messages, and these as long as the attack's.

    Where its user says too little, what else users of its kind say is added.
    """
    system = list(takewhile(lambda turn: turn.role == "system", attack.turns))
    said = [turn for turn in calm.turns if turn.role != "system"]
    wanted = attack.turns[len(system) :]
    turns: list[Turn] = []
    for model in wanted:
        at = next((at for at, turn in enumerate(said) if turn.role == model.role), None)
        if at is None:
            break
        turn = said[at]
        said = said[at + 1 :]
        if model.role == "user":
            text = turn.text
            if len(text) < len(model.text):
                more = harmless.unseen("user", len(model.text) - len(text), host, len(turns), *names)
                text = f"{text}\n{more}" if more else text
            turn = msgspec.structs.replace(turn, text=shortened(text, len(model.text)))
        turns.append(turn)
    return msgspec.structs.replace(calm, turns=tuple(turns or said[:1]), label="benign")
