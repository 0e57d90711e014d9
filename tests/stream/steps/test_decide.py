"""What of the anomalies becomes a finding."""

from collections import Counter
from dataclasses import replace

import pytest

from stream.config import BudgetSettings, DecisionSettings, RoutingSettings, Settings, TopicsSettings
from stream.state.partition import Allowance
from stream.steps.decide import THRESHOLDS, Decider
from stream.steps.route import partition_of

DAY_MS = 86_400_000
RARE, CRITICAL = 1e-3, 1e-6
SETTINGS = Settings(
    topics=TopicsSettings(partitions=2),
    decision=DecisionSettings(mode="budget", session_fpr=0.5),
    budget=BudgetSettings(findings_per_day=10.0, critical_reserve=0.2),
)
TRAFFIC = {"large": 900.0, "small": 100.0}


def _new(
    decider: Decider, tenant: str, partition: int, count: int, now_ms: int, p: float, left: dict[str, Allowance]
) -> int:
    return sum(decider.admits(tenant, partition, left, now_ms, p) for _ in range(count))


def test_without_a_budget_every_anomaly_is_a_finding_at_the_given_rate() -> None:
    decider = Decider(Settings(decision=DecisionSettings(session_fpr=0.02)), TRAFFIC)
    assert decider.session_fpr == 0.02
    assert _new(decider, "small", 0, 1000, 0, RARE, {}) == 1000


def test_the_operating_point_is_where_the_budget_lies_among_a_days_sessions() -> None:
    # 10 a day, less 20 % reserve, of 1,000 sessions a day.
    assert Decider(SETTINGS, TRAFFIC).session_fpr == pytest.approx(8 / 1000)
    assert Decider(SETTINGS, {"one": 1.0}).session_fpr == THRESHOLDS[1]
    assert Decider(SETTINGS, {}).session_fpr == THRESHOLDS[0]


def test_a_tenant_has_its_share_of_a_day_and_more_as_time_passes() -> None:
    decider = Decider(SETTINGS, TRAFFIC)
    left: dict[str, Allowance] = {}
    partition = partition_of("large", None, 2)
    # 8 a day, 80 % of them for known tenants' anomalies, 90 % of those for this one: 5.76.
    assert _new(decider, "large", partition, 100, 0, RARE, left) == 5
    assert _new(decider, "large", partition, 100, 0, RARE, left) == 0
    # 0.76 were left, and a quarter brings 1.44.
    assert _new(decider, "large", partition, 100, DAY_MS // 4, RARE, left) == 2


def test_what_others_in_the_partition_leave_is_spent_and_kept_for_a_day_at_most() -> None:
    decider = Decider(SETTINGS, TRAFFIC)
    partition, shares = partition_of("large", None, 2), decider.shares
    assert shares is not None
    day = sum(shares.of_partition[partition].values())
    left: dict[str, Allowance] = {}
    assert _new(decider, "large", partition, 100, 0, RARE, left) == 5
    # Day after day nobody else finds anything: all of what the partition has is this tenant's, to the last.
    spent = [_new(decider, "large", partition, 100, n * DAY_MS, RARE, left) for n in range(1, 201)]
    assert sum(spent) == pytest.approx(200 * day, abs=2)
    # A long silence brings a day's share, and a day of what everybody left.
    assert _new(decider, "large", partition, 100, 900 * DAY_MS, RARE, left) == int(5.76) + int(day)
    assert _new(decider, "small", partition, 100, 900 * DAY_MS, RARE, left) == 1


def test_a_tenant_that_comes_back_finds_no_more_than_a_days_share() -> None:
    partition = partition_of("large", None, 2)
    with_it, without = Decider(SETTINGS, TRAFFIC), Decider(SETTINGS, {"other": 1000.0})
    left: dict[str, Allowance] = {}
    assert _new(with_it, "large", partition, 100, 0, RARE, left) == 5
    # Another release, which does not know it, is served for ten days, and spends what there is.
    for day in range(1, 11):
        _new(without, "stranger", partition, 100, day * DAY_MS, RARE, left)
    assert "tenant/large" not in left
    assert _new(with_it, "large", partition, 100, 10 * DAY_MS, RARE, left) == 5


def test_small_and_unknown_tenants_share_what_their_partition_has() -> None:
    decider = Decider(SETTINGS, TRAFFIC)
    here = partition_of("small", None, 2)
    shares = decider.shares
    assert shares is not None and dict(shares.of_tenant) == {"large": pytest.approx(5.76)}
    # Unknown tenants: 10 % of 8, halved by partition; the small one has 0.64 beside it where it lives.
    assert shares.of_partition[here]["pool"] == pytest.approx(0.4 + 0.64)
    assert shares.of_partition[1 - here]["pool"] == pytest.approx(0.4)
    assert sum(sum(held.values()) for held in shares.of_partition) == pytest.approx(10)
    left: dict[str, Allowance] = {}
    assert _new(decider, "small", here, 5, 0, RARE, left) + _new(decider, "stranger", here, 5, 0, RARE, left) == 1


def test_critical_findings_have_a_reserve_of_their_own() -> None:
    decider = Decider(SETTINGS, TRAFFIC)
    left: dict[str, Allowance] = {}
    partition = partition_of("large", None, 2)
    assert _new(decider, "large", partition, 100, 0, RARE, left) == 5
    assert _new(decider, "large", partition, 100, 0, CRITICAL, left) == 1
    assert _new(decider, "large", partition, 100, 0, RARE, left) == 0


def test_drift_has_a_share_that_attacks_cannot_spend_and_may_take_of_theirs() -> None:
    decider, left = Decider(SETTINGS, TRAFFIC), dict[str, Allowance]()
    partition = partition_of("large", None, 2)

    def drifts(now_ms: int, many: int) -> int:
        return sum(decider.admits("large", partition, left, now_ms, 1.0, drift=True) for _ in range(many))

    assert _new(decider, "large", partition, 100, 0, RARE, left) == 5
    # 10 % of 8 a day on two partitions: 0.4 of each, and always room for one.
    assert drifts(0, 2) == 1
    assert drifts(2 * DAY_MS, 2) == 2
    # Two days brought 0.8 of its own, so both are at the expense of what the tenant has for attacks.
    assert left["tenant/large"].left == pytest.approx(5.76 - 2)


def test_time_that_goes_back_brings_nothing() -> None:
    allowance = Allowance(0.0, 5 * DAY_MS)
    for core_time_ms, brought in ((0, 0.0), (5 * DAY_MS + DAY_MS // 2, 0.5), (4 * DAY_MS, 0.5), (6 * DAY_MS, 1.0)):
        assert allowance.refill(1.0, 1.0, core_time_ms) == 0
        assert allowance.left == brought


def test_what_there_is_no_room_for_comes_back() -> None:
    allowance = Allowance(0.5, 0)
    assert allowance.refill(2.0, 1.0, DAY_MS) == 1.5
    assert allowance.left == 1.0


def test_a_split_tenants_share_is_split() -> None:
    split = replace(SETTINGS, routing=RoutingSettings(shards={"large": 2, "small": 2}))
    shares = Decider(split, TRAFFIC).shares
    assert shares is not None
    assert shares.of_tenant["large"] == pytest.approx(2.88)
    # Of the small tenant's two shards each brings 0.32 to where it lives.
    homes = Counter(partition_of("small", shard, 2) for shard in range(2))
    assert [held["pool"] for held in shares.of_partition] == pytest.approx([0.4 + 0.32 * homes[n] for n in range(2)])


def test_shards_that_meet_in_a_partition_bring_their_shares_with_them() -> None:
    # Nine shards on two partitions: whatever the hash, some meet. Of 576 findings a day each has 64.
    budget = BudgetSettings(findings_per_day=1000.0, critical_reserve=0.2)
    split = replace(SETTINGS, budget=budget, routing=RoutingSettings(shards={"large": 9}))
    shares = Decider(split, TRAFFIC).shares
    assert shares is not None
    homes = Counter(partition_of("large", shard, 2) for shard in range(9))
    assert [held.get("tenant/large", 0) for held in shares.of_partition] == pytest.approx(
        [64.0 * homes[number] for number in range(2)]
    )
    assert sum(sum(held.values()) for held in shares.of_partition) == pytest.approx(1000)


def test_shards_that_are_too_small_alone_have_an_allowance_where_enough_of_them_meet() -> None:
    # 5.76 a day in eight shards: 0.72 each, on two partitions.
    split = replace(SETTINGS, routing=RoutingSettings(shards={"large": 8}))
    shares = Decider(split, TRAFFIC).shares
    assert shares is not None and not shares.of_tenant
    homes = Counter(partition_of("large", shard, 2) for shard in range(8))
    for number, held in enumerate(shares.of_partition):
        assert held.get("tenant/large", 0) == pytest.approx(0.72 * homes[number] if homes[number] > 1 else 0)
    assert sum(sum(held.values()) for held in shares.of_partition) == pytest.approx(10)


def test_what_is_used_is_what_was_spent_and_has_not_come_in_again() -> None:
    decider = Decider(SETTINGS, TRAFFIC)
    partition, left = partition_of("large", None, 2), dict[str, Allowance]()
    used, room = decider.used(partition, left, 0)
    assert used == 0
    assert _new(decider, "large", partition, 100, 0, RARE, left) == 5
    # A quarter of a day brings a quarter of the share of 5.76.
    for day, still_used in ((0.0, 5.0), (0.25, 5 - 5.76 / 4), (1.0, 0.0)):
        assert decider.used(partition, left, int(day * DAY_MS)) == pytest.approx((still_used, room))
    assert Decider(Settings(), TRAFFIC).used(partition, left, 0) == (0.0, 0.0)
    # Ten quiet days later there is what others left besides; its own is spent first.
    assert _new(decider, "large", partition, 6, 11 * DAY_MS, RARE, left) == 6
    assert left["spare"].left > 0
    assert decider.used(partition, left, 11 * DAY_MS) == pytest.approx((5.0, room))


def test_excepted_tenants_are_named_by_the_configuration() -> None:
    decider = Decider(Settings(decision=DecisionSettings(exceptions={"pentest": "their job"})), {})
    assert decider.excepted("pentest")
    assert not decider.excepted("other")
