"""`slices`: benign sessions of all tenants and attacks of all kinds, to be cut by what they are like."""

from __future__ import annotations

from evaluation.corpus import Corpus
from evaluation.draws import rank, spread
from evaluation.injection import family_of, injections
from evaluation.placing import named, probed
from evaluation.protocols.session import benign_probes, placed_attack
from evaluation.protocols.splice import drawn_attacks
from evaluation.slicing import probe_of
from evaluation.split import Split, base_of
from evaluation.trial import Nothing, Probe, Trial

NAME = "slices"


def slices(corpus: Corpus, split: Split) -> Trial | Nothing:
    """Benign sessions of learned, young and never seen tenants, injected sessions, and foreign ones on any tenant.

    At most `Caps.benign_sliced` benign sessions of each tenant, `Caps.sites` injected ones of each family, and foreign
    ones placed on tenants drawn by hash, never seen ones included. Probes of all protocols but `stream` carry the same
    slices (see `slicing.slices_of`), and this one has enough benign sessions of each; those of `stream` carry `drift`
    alone, and only benign ones of a tenant that has changed.
    """
    probes: list[Probe] = list(benign_probes(split, split.caps.benign_sliced))
    probes += benign_probes(split, split.caps.benign_sliced, sorted(split.unseen))
    if not probes:
        return Nothing(NAME, "there are no benign sessions in the test half")
    by_family: dict[str, list[Probe]] = {}
    for injection in injections(corpus):
        if injection.session.tenant in split.learned and split.tests(injection.session):
            own = by_family.setdefault(injection.family, [])
            own.append(
                probe_of(
                    named(injection.session),
                    split,
                    label="attack",
                    family=injection.family,
                    cluster=base_of(injection.session),
                    obeyed=injection.obeyed,
                )
            )
    for _, own in sorted(by_family.items()):
        probes += spread(
            own,
            split.caps.sites,
            lambda p: (p.session.tenant, p.cluster),
            lambda p: rank("sliced", split.seed, p.session.session),
        )
    hosts = split.hosts | {tenant: own for tenant, own in split.unseen.items() if own}
    for attack in drawn_attacks(corpus, split) if hosts else []:
        placed = placed_attack(attack, hosts, split.seed, NAME)
        cluster = f"{attack.source or family_of(attack)}/{base_of(attack)}"
        probes.append(probe_of(placed, split, label="attack", family=family_of(attack), cluster=cluster))
    return Trial(protocol=NAME, seed=split.seed, learn=split.learn, probes=probed(probes, split.seed))
