"""Which anomalies become findings: the operating point, exceptions, and the budget of new findings."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stream.config import Settings
from stream.state.partition import Allowance
from stream.steps.findings import CRITICAL_P
from stream.steps.route import partition_of

UNKNOWN_SHARE = 0.1
"""Of the budget, for tenants that the release does not know."""
DRIFT_SHARE = 0.1
"""Of the budget, for tenants whose traffic has moved: many do on the day of a change, and so do attacks' findings."""
THRESHOLDS = (1e-6, 0.2)
"""Range of the p-value that a budget may come to: beyond one end a tail says nothing, at the other nothing is rare."""


RISK_FACTOR = 3.0
"""Who is at risk, because a verdict found an attack, is judged at so many times the share of sessions."""
RISK_MAX = 0.2
"""But of no more than this share of sessions, unless the operating point itself lies beyond."""

_POOL, _CRITICAL, _DRIFT, _SPARE, _TENANT = "pool", "critical", "drift", "spare", "tenant/"


@dataclass(frozen=True, slots=True)
class Shares:
    """A day's new findings, shared out.

    Parameters
    ----------
    of_tenant
        Tenants whose share is one a day or more wherever their events come in, and that share; of a tenant that is
        split, that of one shard.
    of_partition
        What each partition has a day, by allowance: those of the tenants whose events it holds (of several shards their
        sum); the pool for all others, that is for those with smaller shares and those that the release does not know;
        and what is for severity critical alone, and for drift alone.
    """

    of_tenant: Mapping[str, float]
    of_partition: tuple[Mapping[str, float], ...]


def stricter(session_fpr: float) -> float:
    """The operating point for those at risk.

    >>> stricter(0.01), stricter(0.1), stricter(0.5)
    (0.03, 0.2, 0.5)
    """
    return max(session_fpr, min(RISK_FACTOR * session_fpr, RISK_MAX))


class Decider:
    """Decides what becomes of an anomaly.

    In mode `fpr` the operating point is a share of sessions. In mode `budget` it is where as many benign sessions lie
    as the budget has findings, going by the sessions a day that the release was trained on; what comes beyond a
    tenant's share of the budget is dropped, and counted. Shares follow from the release, so that partitions need not
    agree; only new findings cost anything.

    Parameters
    ----------
    sessions_per_day
        The release's: sessions a day by tenant.
    """

    def __init__(self, settings: Settings, sessions_per_day: Mapping[str, float]) -> None:
        self._exceptions = settings.decision.exceptions
        self.session_fpr = settings.decision.session_fpr
        self.shares: Shares | None = None
        if settings.decision.mode == "budget":
            total = sum(sessions_per_day.values())
            wanted = settings.budget.findings_per_day * (1 - settings.budget.critical_reserve)
            self.session_fpr = min(max(wanted / total, THRESHOLDS[0]), THRESHOLDS[1]) if total else THRESHOLDS[0]
            self.shares = _shares(settings, sessions_per_day)

    def excepted(self, tenant: str) -> bool:
        """Whether nothing is found of a tenant."""
        return tenant in self._exceptions

    def admits(
        self,
        tenant: str,
        partition: int,
        allowances: dict[str, Allowance],
        core_time_ms: int,
        p_combined: float,
        *,
        drift: bool = False,
    ) -> bool:
        """Whether the budget has room for a new finding; `allowances` are the partition's, which this may change."""
        shares = self.shares
        if shares is None:
            return True
        name = f"{_TENANT}{tenant}"
        if tenant in shares.of_tenant and name not in shares.of_partition[partition]:
            # Wherever its events come in, by whatever key: its share is its own.
            allowances.setdefault(name, Allowance(_room(shares.of_tenant[tenant]), core_time_ms))
        held = _refilled(shares, partition, allowances, core_time_ms)
        if drift and held[_DRIFT].take():
            return True
        mine = held.get(name, held[_POOL])
        return mine.take() or held[_SPARE].take() or (p_combined <= CRITICAL_P and held[_CRITICAL].take())

    def used(self, partition: int, allowances: Mapping[str, Allowance], core_time_ms: int) -> tuple[float, float]:
        """New findings that a partition's allowances have spent, and what they can hold; both 0 without a budget.

        What is spent of others' overflow is not among them.

        >>> Decider(Settings(), {}).used(0, {}, 0)
        (0.0, 0.0)
        """
        spent = room = 0.0
        if self.shares is not None:
            for name, share in _daily(self.shares, partition, allowances).items():
                own = _room(share)
                room += own
                if name in allowances:
                    spent += own - allowances[name].after(share, own, core_time_ms)
        return spent, room


def _daily(shares: Shares, partition: int, allowances: Mapping[str, Allowance]) -> dict[str, float]:
    """What each of a partition's allowances brings a day, those of tenants included whose events only came in here."""
    daily = dict(shares.of_partition[partition])
    for name in allowances:
        tenant = name.removeprefix(_TENANT)
        if name.startswith(_TENANT) and name not in daily and tenant in shares.of_tenant:
            daily[name] = shares.of_tenant[tenant]
    return daily


def _refilled(
    shares: Shares, partition: int, allowances: dict[str, Allowance], core_time_ms: int
) -> Mapping[str, Allowance]:
    """A partition's allowances, with what has come in since; each has room for a day's, and always for one.

    What one has no room for is anybody's in the partition, up to a day's of all. Those of tenants that have no share
    under this release end: what they would bring in the meantime is others' by now.
    """
    daily = _daily(shares, partition, allowances)
    for name in allowances.keys() - daily.keys() - {_SPARE}:
        del allowances[name]
    left_over = 0.0
    for name, share in daily.items():
        room = _room(share)
        left_over += allowances.setdefault(name, Allowance(room, core_time_ms)).refill(share, room, core_time_ms)
    spare = allowances.setdefault(_SPARE, Allowance(0.0, core_time_ms))
    spare.left = min(spare.left + left_over, _room(sum(daily.values())))
    return allowances


def _room(share: float) -> float:
    return max(share, 1.0)


def _shares(settings: Settings, sessions_per_day: Mapping[str, float]) -> Shares:
    partitions = settings.topics.partitions
    daily = settings.budget.findings_per_day * (1 - settings.budget.critical_reserve)
    total = sum(sessions_per_day.values())
    reserve = settings.budget.findings_per_day * settings.budget.critical_reserve / partitions
    unknown = UNKNOWN_SHARE if total else 1 - DRIFT_SHARE
    first = {_POOL: daily * unknown / partitions, _CRITICAL: reserve, _DRIFT: daily * DRIFT_SHARE / partitions}
    own: dict[str, float] = {}
    of_partition = [dict(first) for _ in range(partitions)]
    for tenant in sorted(sessions_per_day):
        share = daily * (1 - UNKNOWN_SHARE - DRIFT_SHARE) * sessions_per_day[tenant] / total if total else 0.0
        split = max(settings.routing.shards.get(tenant, 1), 1)
        if share / split >= 1:
            own[tenant] = share / split
        # Shards that meet in a partition bring their shares with them.
        for number, shards in Counter(_partitions_of(tenant, split, partitions)).items():
            part = share / split * shards
            name = f"{_TENANT}{tenant}" if part >= 1 else _POOL
            of_partition[number][name] = of_partition[number].get(name, 0.0) + part
    return Shares(own, tuple(of_partition))


def _partitions_of(tenant: str, split: int, partitions: int) -> list[int]:
    """Of each shard."""
    shards: Iterable[int | None] = range(split) if split > 1 else (None,)
    return [partition_of(tenant, shard, partitions) for shard in shards]
