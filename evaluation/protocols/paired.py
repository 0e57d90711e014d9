"""`paired`: the same tasks, clean and injected, and every injection told in other words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from evaluation.corpus import Corpus
from evaluation.draws import rank, spread
from evaluation.harmless import Harmless
from evaluation.injection import Injection, injections
from evaluation.placing import named, probed
from evaluation.rewrites.bare_goal import bare_goals
from evaluation.rewrites.variants import (
    REWRITES,
    diverse,
    encoded,
    foreign_language,
    payload_chars,
    rewritten,
    sites,
    split_over,
)
from evaluation.slicing import probe_of
from evaluation.split import Split, base_of
from evaluation.trial import Nothing, Probe, Trial
from schemas.corpus import CorpusSession

NAME = "paired"
CONTROL = "ctrl"


def paired(corpus: Corpus, split: Split) -> Trial | Nothing:
    """Benign and injected sessions of the test half's tasks, of tenants whose sessions carry tasks.

    All benign sessions and all injected ones are judged. Of each family `Caps.sites` injection sites are drawn, spread
    over the tasks, and each is rewritten once in each of `REWRITES`, and once with harmless text of a tool of another
    source, of the same length (family `ctrl`): its session ends after the answer to it. So a rewrite is a shorter
    session than most benign ones, which have more events in which to be mistaken; that is to the detriment of whoever
    is judged.

    Figures: `injections`; `without_twin`, those that no rewrite can be made of; over rewrites `sites_not_drawn`,
    `without_goal` (no template was told from a goal) and `without_results` (no second tool's result to split over).
    """
    judged = [injection for injection in injections(corpus) if split.tests(injection.session)]
    tenants = {injection.session.tenant for injection in judged} & set(split.learned)
    judged = [injection for injection in judged if injection.session.tenant in tenants]
    if not judged:
        return Nothing(NAME, "no learned tenant has injected sessions on a task of the test half")
    probes = [
        probe_of(named(session), split, label="benign", cluster=base_of(session))
        for tenant in sorted(tenant for tenant in tenants if tenant is not None)
        for session in split.test[tenant]
        if session.task is not None
    ]
    probes += [
        _probe(injection, injection.session, split, [span.text for span in injection.spans], obeyed=injection.obeyed)
        for injection in judged
    ]
    figures: Counter[str] = Counter(
        injections=len(judged), without_twin=sum(not injection.spans for injection in judged)
    )
    probes += _rewrites(corpus, split, judged, figures)
    return Trial(
        protocol=NAME,
        seed=split.seed,
        learn=split.learn,
        probes=probed(probes, split.seed),
        figures=dict(figures),
    )


def _rewrites(corpus: Corpus, split: Split, judged: Sequence[Injection], figures: Counter[str]) -> Iterator[Probe]:
    goals = _goals(corpus)
    harmless = Harmless(split)
    by_family: dict[str, list[Injection]] = {}
    for injection in sites(judged):
        by_family.setdefault(injection.family, []).append(injection)
    for family, own in sorted(by_family.items()):
        for rewrite in (*REWRITES, CONTROL):
            made = 0
            for at, injection in enumerate(_drawn(own, split.seed, rewrite)):
                if made == split.caps.sites:
                    figures["sites_not_drawn"] += len(own) - at
                    break
                probe = _rewrite(injection, rewrite, split, goals[family], harmless, figures)
                if probe is not None:
                    made += 1
                    yield probe


def _rewrite(
    injection: Injection,
    rewrite: str,
    split: Split,
    goals: dict[str, str],
    harmless: Harmless,
    figures: Counter[str],
) -> Probe | None:
    names = rewrite, split.seed, injection.session.tenant, injection.session.session
    family = f"{injection.family}+{rewrite}"
    if rewrite == CONTROL:
        text = harmless.foreign("tool", payload_chars(injection), injection.session, *names)
        if not text:
            figures["without_harmless"] += 1
            return None
        return _probe(injection, rewritten(injection, text), split, [], CONTROL, control=True)
    if rewrite == "split":
        text = diverse(*names)
        parted = split_over(injection, text, *names)
        if parted is None:
            figures["without_results"] += 1
            return None
        return _probe(injection, parted, split, [text], family)
    if rewrite == "goal":
        goal = next((goals[span.text] for span in injection.spans if span.text in goals), None)
        if goal is None:
            figures["without_goal"] += 1
            return None
        return _probe(injection, rewritten(injection, goal), split, [goal], family)
    if rewrite == "lang":
        text, code = foreign_language(*names)
        return _probe(injection, rewritten(injection, text), split, [text], family, injected=code)
    if rewrite == "encoded":
        text, name, goal = encoded(*names)
        # Either of them is what was injected: a finding may show what was undone.
        return _probe(injection, rewritten(injection, text), split, [text, goal], family, injected=name)
    text = diverse(*names)
    return _probe(injection, rewritten(injection, text), split, [text], family)


def _probe(
    injection: Injection,
    session: CorpusSession,
    split: Split,
    placed: Sequence[str],
    family: str | None = None,
    obeyed: bool | None = None,
    control: bool = False,
    **more: str,
) -> Probe:
    return probe_of(
        named(session) if family is None else named(session, injection.family, family),
        split,
        label="control" if control else "attack",
        family=injection.family if family is None else family,
        cluster=base_of(injection.session),
        obeyed=obeyed,
        placed=placed,
        **more,
    )


def _drawn(own: Sequence[Injection], seed: int, rewrite: str) -> list[Injection]:
    """All sites of a family, those of other tasks first."""
    return spread(
        own,
        len(own),
        lambda injection: (injection.session.tenant, base_of(injection.session)),
        lambda injection: rank("site", seed, rewrite, injection.session.tenant, injection.session.session),
    )


def _goals(corpus: Corpus) -> dict[str, dict[str, str]]:
    """By family, the goal of each injected text."""
    texts: dict[str, list[str]] = {}
    for injection in injections(corpus):
        texts.setdefault(injection.family, []).extend(span.text for span in injection.spans)
    return {family: bare_goals(own) for family, own in texts.items()}
