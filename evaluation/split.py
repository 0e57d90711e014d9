"""Which sessions are learned, which are judged, and whose no system ever sees before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from evaluation.corpus import Corpus, opening_of
from evaluation.draws import rank, spread
from evaluation.placing import learned
from schemas.corpus import CorpusSession
from stream.training.language import language_of

NO_HOSTS = "no tenant has benign sessions of which some could be learned and others judged"
"""Why there is nothing that something foreign could be placed on."""
_LANGUAGE_SESSIONS, _LANGUAGE_CHARS = 20, 1_000
"""Of a tenant, and of each message: enough to hear what its users speak."""


@dataclass(frozen=True, slots=True)
class Caps:
    """How much at most: one fit takes a minute or two, and so does judging."""

    learn_of_tasks: int = 150
    """Learned sessions of a tenant whose sessions carry tasks: injections are judged against these."""
    learn_of_others: int = 60
    learn_of_young: int = 25
    """Of a few tenants, so that there are tenants of whom little is known."""
    benign: int = 30
    """Benign sessions of a tenant that are judged, where it is not all of them."""
    benign_sliced: int = 60
    """The same for `slices`, which cuts them small."""
    sites: int = 60
    """Injections of a family that each rewrite is made of."""
    foreign: int = 25
    """Foreign attacks of a family."""
    look_alikes: int = 300


@dataclass(frozen=True)
class Split:
    """One seed's halves of a corpus."""

    seed: int
    caps: Caps
    learn: tuple[CorpusSession, ...]
    """Benign sessions of the learn half, dated, in the order of time: one fit on them serves all protocols."""
    test: Mapping[str, list[CorpusSession]]
    """Benign sessions of the test half, by learned tenant."""
    unseen: Mapping[str, list[CorpusSession]]
    """Benign sessions of tenants that are not learned at all, by tenant. Nor is anything else of their source."""
    learn_bases: frozenset[str]
    """Of the learn half, in the sense of `base_of`."""

    @cached_property
    def learned(self) -> dict[str, int]:
        """Tenants that are learned, with how many of their sessions are."""
        return dict(Counter(session.tenant for session in self.learn if session.tenant is not None))

    @cached_property
    def hosts(self) -> dict[str, list[CorpusSession]]:
        """Learned tenants that something foreign can be placed on, with sessions of the test half to stand beside."""
        return {tenant: own for tenant, own in self.test.items() if own and tenant in self.learned}

    def tests(self, session: CorpusSession) -> bool:
        """Whether an attack that stands on a tenant's task is judged: its task is none of the learn half's."""
        return base_of(session) not in self.learn_bases


def base_of(session: CorpusSession) -> str:
    """Sessions of equal base are one conversation told again, by whichever tenant.

    That is their task; without one it is what the user says first, as far as it is long enough to tell anything.
    """
    opening = opening_of(session)
    # Of a corpus without tasks, an opening is a task where there are injected sessions of it, and only there.
    if session.task is not None and session.task != opening:
        return f"task {session.task}"
    return f"session {session.tenant} {session.session}" if opening is None else opening


def split(corpus: Corpus, seed: int, caps: Caps = Caps()) -> Split:
    """Deal each tenant's conversations to two halves, leave a few sources out, and date what is learned.

    A conversation that several tenants hold (equal task, or equal opening) lies in the same half for all of them.

    Left out are a quarter of the sources that could be, at least one, in turn over the seeds: those whose tenants have
    no injected sessions of a task, as these could not be judged otherwise, and that hold at most a third of all
    tenants. Sources that share a tenant count as one; tenants of no source are one each. One of those left out speaks
    the language that most tenants speak, if any could: what is harmless would else be told from attacks by language.
    And one of these has tools that return something, if any could: one more is left out where the others have none.
    """
    unseen = _left_out(corpus, seed)
    learning = {tenant: own for tenant, own in corpus.benign.items() if tenant not in unseen}
    half_of = halves(learning, seed)
    young = _young(corpus, learning, seed)
    learn: list[CorpusSession] = []
    for tenant, own in learning.items():
        most = caps.learn_of_tasks if any(session.task is not None for session in own) else caps.learn_of_others
        if tenant in young:
            most = min(most, caps.learn_of_young)
        mine = [session for session in own if half_of[base_of(session)] == 0]
        learn += spread(mine, most, base_of, lambda session: rank("learn", seed, session.tenant, session.session))
    test = {tenant: [s for s in own if half_of[base_of(s)] == 1] for tenant, own in learning.items()}
    return Split(
        seed=seed,
        caps=caps,
        learn=learned(learn, seed),
        test=test,
        unseen={tenant: corpus.benign[tenant] for tenant in sorted(unseen)},
        learn_bases=frozenset(base for base, half in half_of.items() if half == 0),
    )


def halves(benign: Mapping[str, list[CorpusSession]], seed: int) -> dict[str, int]:
    """The half of each base, 0 to learn and 1 to test: a tenant's are shuffled by hash and dealt in turn."""
    half_of: dict[str, int] = {}
    for tenant, own in sorted(benign.items()):
        bases = sorted({base_of(session) for session in own}, key=lambda base: (rank("half", seed, base), base))
        dealt = Counter(half_of[base] for base in bases if base in half_of)
        for base in bases:
            if base not in half_of:
                # The odd one goes to either half.
                even = rank("odd", seed, tenant) % 2
                half = even if dealt[0] == dealt[1] else int(dealt[1] < dealt[0])
                half_of[base] = half
                dealt[half] += 1
    return half_of


def source_groups(corpus: Corpus) -> list[list[str]]:
    """Benign tenants by source: those of one source, or of sources that share a tenant, together."""
    head: dict[str, str] = {tenant: tenant for tenant in corpus.benign}

    def top(tenant: str) -> str:
        while head[tenant] != tenant:
            tenant = head[tenant]
        return tenant

    first: dict[str, str] = {}
    for tenant, own in corpus.benign.items():
        for source in sorted({session.source for session in own if session.source is not None}):
            head[top(tenant)] = top(first.setdefault(source, tenant))
    groups: dict[str, list[str]] = {}
    for tenant in corpus.benign:
        groups.setdefault(top(tenant), []).append(tenant)
    return sorted(groups.values())


def _left_out(corpus: Corpus, seed: int) -> set[str]:
    groups = source_groups(corpus)
    eligible = [
        group for group in groups if not any(map(corpus.injected, group)) and 3 * len(group) <= len(corpus.benign)
    ]
    if not eligible:
        return set()
    eligible.sort(key=lambda group: rank("left out", *group))
    spoken = {tenant: _language(own) for tenant, own in corpus.benign.items()}
    common = Counter(spoken.values()).most_common(1)[0][0]
    plain = [group for group in eligible if any(spoken[tenant] == common for tenant in group)]
    chosen = [plain[seed % len(plain)]] if plain else []
    others = [group for group in eligible if group not in chosen]
    chosen += [others[(seed + turn) % len(others)] for turn in range(round(len(eligible) / 4) - len(chosen))]
    chosen = chosen or eligible[:1]
    of_tools = [group for group in eligible if any(_has_results(corpus.benign[tenant]) for tenant in group)]
    of_tools = [group for group in of_tools if group in plain] or of_tools
    if of_tools and not any(group in of_tools for group in chosen):
        chosen.append(of_tools[seed % len(of_tools)])
    return {tenant for group in chosen for tenant in group}


def _has_results(own: Sequence[CorpusSession]) -> bool:
    return any(turn.role == "tool" and turn.text.strip() for session in own for turn in session.turns)


def _language(own: Sequence[CorpusSession]) -> str:
    turns = (turn for session in own[:_LANGUAGE_SESSIONS] for turn in session.turns if turn.role == "user")
    return language_of("\n".join(turn.text[:_LANGUAGE_CHARS] for turn in turns))


def _young(corpus: Corpus, learning: Mapping[str, list[CorpusSession]], seed: int) -> set[str]:
    """One in six of the tenants without attacks of their own."""
    others = sorted(
        (tenant for tenant in learning if tenant not in corpus.placed), key=lambda t: rank("young", seed, t)
    )
    return set(others[: len(others) // 6])
