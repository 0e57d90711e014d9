"""Every tenant's adapter is fitted by its own windows alone, in the arithmetic that scores, or stays zero."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.autoencoder import SequenceBank
from models.bank_arrays import check_bank
from models.training import adapters
from models.training.adapters import FitAdapters, fit_adapters
from models.training.autoencoder import Fit, fit
from models.training.quantised import valid_steps
from tests.models.banks import BOTTLENECK, FEATURES, HIDDEN, RANK, STEPS, cycling_windows, random_bank, random_windows

HOW = FitAdapters(rank=2, steps=80, device="cpu")
SHORT = replace(HOW, steps=16, gain_min=-1.0)
"""Too short to be of use; what it gives is kept all the same."""
PER_TENANT = 240
Arrays = dict[str, NDArray[np.generic]]


def tenant_windows(tenant: int, seed: int, n: int) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Tenant 0 is like the population; the others' tools come in another order and their events are larger."""
    windows, lengths = cycling_windows(seed, n)
    windows = windows.astype(np.int16)
    inside = np.arange(STEPS) >= STEPS - lengths[:, None]
    windows[..., :3] = np.roll(windows[..., :3], tenant, axis=-1)
    windows[..., 3:] = np.where(inside[..., None], windows[..., 3:] + 12 * tenant, 0)
    return np.clip(windows, -127, 127).astype(np.int8), lengths


def traffic(counts: list[int], seed: int = 5) -> tuple[NDArray[np.int8], NDArray[np.int64], NDArray[np.int64]]:
    """Windows, lengths and tenants, `counts[t]` windows of tenant t."""
    parts = [tenant_windows(tenant, seed + tenant, n) for tenant, n in enumerate(counts)]
    tenant = np.repeat(np.arange(len(counts)), counts)
    return np.concatenate([w for w, _ in parts]), np.concatenate([n for _, n in parts]), tenant


def groups(n: int) -> NDArray[np.int64]:
    return np.arange(n) % 5


@pytest.fixture(scope="module")
def backbone() -> Arrays:
    windows, lengths = cycling_windows(0, 2000)
    return fit(windows, lengths, seed=1, how=Fit(hidden=16, bottleneck=8, epochs=10, steps_min=200))


@pytest.fixture(scope="module")
def fitted(backbone: Arrays) -> Arrays:
    windows, lengths, tenant = traffic([PER_TENANT] * 3)
    group = groups(len(windows))
    return fit_adapters(windows, lengths, tenant, backbone, group=group, tenants=3, seed=1, how=HOW)


def errors(bank: SequenceBank, tenant: int, row: int) -> NDArray[np.float32]:
    windows, lengths = tenant_windows(tenant, 99 + tenant, 400)
    return bank.score(windows, lengths, np.full(400, row))[0]


def test_a_tenant_unlike_the_population_is_reconstructed_better_by_its_own_adapter(
    backbone: Arrays, fitted: Arrays
) -> None:
    bank = SequenceBank(backbone | fitted)
    for tenant in (1, 2):
        assert errors(bank, tenant, tenant).mean() < 0.7 * errors(bank, tenant, -1).mean()
    # Each fits its own tenant, not any that differs.
    assert errors(bank, 1, 2).mean() > 1.2 * errors(bank, 1, 1).mean()


def test_a_tenant_is_not_served_worse_than_by_the_population(backbone: Arrays, fitted: Arrays) -> None:
    bank = SequenceBank(backbone | fitted)
    for tenant in range(3):
        assert errors(bank, tenant, tenant).mean() <= 1.02 * errors(bank, tenant, -1).mean()


def test_what_is_fitted_is_a_bank(backbone: Arrays, fitted: Arrays) -> None:
    shape = check_bank(backbone | fitted)
    assert (shape.tenants, shape.rank) == (3, 2)
    assert {name: array.dtype for name, array in fitted.items()} == dict.fromkeys(
        [f"adapter.{layer}.{part}" for layer in ("encoder", "bottleneck") for part in ("down", "up")], np.int8
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_the_fit_computes_what_the_bank_computes(seed: int) -> None:
    # Random weights, of both shifts: activations reach the ends of the grid, adapters too.
    arrays = random_bank(seed, tenants=3)
    windows, lengths = random_windows(seed, 60)
    network = adapters._Adapters(arrays, 3, RANK, torch.Generator(), torch.device("cpu"))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            layer = name.partition("_")[0]
            shift = int(arrays["shifts"][("encoder", "bottleneck").index(layer)])
            parameter.copy_(torch.from_numpy(arrays["adapter." + name.replace("_", ".")].astype(np.float32)) / 2**shift)
            expected = arrays["adapter." + name.replace("_", ".")]
            assert np.array_equal(network.codes(name, parameter), expected)
        x = torch.from_numpy(np.maximum(windows, -127).astype(np.float32) / 16).view(3, 20, STEPS, FEATURES)
        valid = valid_steps(torch.from_numpy(lengths), STEPS).view(3, 20, STEPS, 1)
        decoded = network(x, valid).reshape(60, FEATURES).numpy()
    arrays["feature_weight"] = np.ones(FEATURES, np.int8)
    _, error = SequenceBank(arrays).score(windows, lengths, np.repeat(np.arange(3), 20))
    last = np.maximum(windows[:, -1], -127) / np.float32(16)
    assert np.array_equal(error, (last - decoded) ** 2 / np.float32(FEATURES))
    assert arrays["bottleneck.weight"].shape == (STEPS * HIDDEN, BOTTLENECK)


def test_a_tenant_that_is_like_the_population_keeps_the_zero_adapter(backbone: Arrays) -> None:
    windows, lengths, tenant = traffic([PER_TENANT] * 3)
    strict = replace(HOW, gain_min=0.2)
    arrays = fit_adapters(windows, lengths, tenant, backbone, group=groups(720), tenants=3, seed=1, how=strict)
    assert [any(array[row].any() for array in arrays.values()) for row in range(3)] == [False, True, True]


def test_an_adapter_that_only_learned_what_was_not_held_out_is_dropped(backbone: Arrays) -> None:
    # What is held out of tenant 0 is another tenant's: whatever lowers the one error raises the other.
    own, lengths = tenant_windows(2, 7, PER_TENANT)
    other, other_lengths = tenant_windows(0, 8, 60)
    windows, lengths = np.concatenate([own, other]), np.concatenate([lengths, other_lengths])
    group = np.repeat([0, 1], [PER_TENANT, 60])
    tenant = np.zeros(300, np.int64)
    given: dict[str, Any] = {"tenants": 1, "seed": 1, "how": HOW}
    dropped = fit_adapters(windows, lengths, tenant, backbone, group=group, **given)
    assert not any(array.any() for array in dropped.values())
    kept = fit_adapters(windows, lengths, tenant, backbone, group=groups(300), **given)
    assert any(array.any() for array in kept.values())


def test_tenants_with_too_little_to_hold_out_keep_the_zero_adapter(backbone: Arrays) -> None:
    # Tenant 0 has one group, tenant 2 has 5 held-out windows of the 8 that it takes, and tenant 3 none at all.
    windows, lengths, tenant = traffic([PER_TENANT, PER_TENANT, 25])
    group = groups(len(windows))
    group[tenant == 0] = 0
    arrays = fit_adapters(windows, lengths, tenant, backbone, group=group, tenants=4, seed=1, how=SHORT)
    assert [any(array[row].any() for array in arrays.values()) for row in range(4)] == [False, True, False, False]


def test_nothing_to_fit_on_gives_zero_adapters(backbone: Arrays) -> None:
    nothing = np.zeros(0, np.int64)
    windows = np.zeros((0, STEPS, FEATURES), np.int8)
    arrays = fit_adapters(windows, nothing, nothing, backbone, group=nothing, tenants=2, seed=1, how=HOW)
    assert check_bank(backbone | arrays).tenants == 2
    assert not any(array.any() for array in arrays.values())


def test_the_fewer_a_tenants_windows_the_closer_it_stays_to_the_population(backbone: Arrays) -> None:
    size = []
    for n in (50, 1000):
        windows, lengths = tenant_windows(1, 3, n)
        how = replace(HOW, prior_windows=20.0)
        tenant = np.zeros(n, np.int64)
        arrays = fit_adapters(windows, lengths, tenant, backbone, group=groups(n), tenants=1, seed=1, how=how)
        size.append(sum(np.square(array.astype(float)).sum() for name, array in arrays.items() if name.endswith("up")))
    assert 0 < size[0] < 0.7 * size[1]


def test_a_tenants_adapter_does_not_depend_on_who_else_is_there(backbone: Arrays) -> None:
    windows, lengths, tenant = traffic([120, 90, 150])
    group = groups(len(windows))
    given: dict[str, Any] = {"backbone": backbone, "seed": 1, "how": SHORT}
    together = fit_adapters(windows, lengths, tenant, group=group, tenants=3, **given)
    mine = tenant == 1
    alone = fit_adapters(windows[mine], lengths[mine], np.zeros(90, np.int64), group=group[mine], tenants=1, **given)
    in_turn = fit_adapters(
        windows, lengths, tenant, backbone, group=group, tenants=3, seed=1, how=replace(SHORT, tenants_at_once=2)
    )
    for name, array in together.items():
        assert array[1].any()
        assert np.array_equal(array[1], alone[name][0])
        assert np.array_equal(array, in_turn[name])


def test_the_order_of_the_windows_does_not_matter(backbone: Arrays) -> None:
    windows, lengths, tenant = traffic([60, 60])
    group = groups(120)
    order = np.random.default_rng(0).permutation(120)
    first, second = (
        fit_adapters(windows[at], lengths[at], tenant[at], backbone, group=group[at], tenants=2, seed=1, how=SHORT)
        for at in (np.arange(120), order)
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)


_DIGEST = """
import hashlib
from models.training.adapters import fit_adapters
from tests.models.banks import random_bank
from tests.models.training.test_adapters import SHORT, groups, traffic
windows, lengths, tenant = traffic([60, 60])
arrays = fit_adapters(windows, lengths, tenant, random_bank(2), group=groups(120), tenants=2, seed=4, how=SHORT)
assert arrays["adapter.encoder.up"].any()
print(hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest())
"""


def test_same_input_and_seed_give_the_same_bytes_in_two_processes() -> None:
    runs = [
        subprocess.run([sys.executable, "-c", _DIGEST], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert len(runs[0].strip()) == 2 * hashlib.sha256().digest_size


def test_another_seed_gives_other_adapters(backbone: Arrays) -> None:
    windows, lengths, tenant = traffic([60])
    first, second = (
        fit_adapters(windows, lengths, tenant, backbone, group=groups(60), tenants=1, seed=seed, how=SHORT)
        for seed in (1, 2)
    )
    assert not np.array_equal(first["adapter.encoder.down"], second["adapter.encoder.down"])


def test_the_backbones_own_adapters_are_not_looked_at(backbone: Arrays, fitted: Arrays) -> None:
    windows, lengths, tenant = traffic([60])
    given: dict[str, Any] = {"group": groups(60), "tenants": 1, "seed": 1, "how": SHORT}
    first = fit_adapters(windows, lengths, tenant, backbone, **given)
    second = fit_adapters(windows, lengths, tenant, backbone | fitted, **given)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_bfloat16_products_of_the_grids_numbers_differ_in_few_activations() -> None:
    # What a GPU trains with, on the CPU: inputs are exact, a sum is rounded to 8 bits before it is put on the grid.
    arrays = random_bank(0)
    network = adapters._Adapters(arrays, 2, RANK, torch.Generator().manual_seed(0), torch.device("cpu"))
    windows, lengths = cycling_windows(3, 400)
    x = torch.from_numpy(windows.astype(np.float32) / 16).view(2, 200, STEPS, FEATURES)
    valid = valid_steps(torch.from_numpy(lengths), STEPS).view(2, 200, STEPS, 1)
    with torch.inference_mode():
        exact = network(x, valid)
        network.bf16 = True
        close = network(x, valid)
    step = 1 / 16
    assert 0 < (exact - close).abs().mean() < step
    assert torch.equal(close, (close / step).round() * step)


def test_draws_follow_the_weights_and_leave_alone_what_is_held_out() -> None:
    given = adapters._Windows(
        x=np.zeros((5, STEPS, FEATURES), np.int8),
        lengths=np.ones(5, np.int64),
        tenant=np.array([0, 0, 0, 1, 1]),
        held_out=np.array([False, False, True, False, True]),
        weight=np.array([1, 3, 50, 2, 50], np.float32),
    )
    batches = adapters._Batches(given, 2, torch.device("cpu"))
    drawn = batches.draw(4000, torch.Generator().manual_seed(0))
    assert batches.drawn.tolist() == [2, 1]
    assert set(drawn[0].tolist()) == {0, 1}
    assert set(drawn[1].tolist()) == {3}
    # A binomial share of 3/4 of 4,000 has a standard error of .007.
    assert abs((drawn[0] == 1).float().mean() - 0.75) < 0.03


def test_a_window_counts_once_with_the_root_of_how_often_it_occurs() -> None:
    windows, lengths = cycling_windows(0, 2)
    often = np.repeat(windows, [1, 9], axis=0), np.repeat(lengths, [1, 9])
    found = adapters._distinct(*often, np.zeros(10, np.int64), np.zeros(10, np.int64))
    assert sorted(found.weight.tolist()) == [1, 3]
    apart = adapters._distinct(*often, np.repeat([300, 2], [9, 1]), np.zeros(10, np.int64))
    assert apart.tenant.tolist() == sorted(apart.tenant.tolist())


def test_the_last_group_of_a_tenant_is_held_out_unless_it_is_the_only_one() -> None:
    tenant, group = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 2, 2, 1, 0, 4])
    assert adapters._held_out(tenant, group).tolist() == [False, True, True, True, False, False]


def test_held_out_blocks_are_padded_with_what_has_no_share_and_thinned_evenly() -> None:
    given = adapters._Windows(
        x=np.zeros((9, STEPS, FEATURES), np.int8),
        lengths=np.ones(9, np.int64),
        tenant=np.array([0, 0, 0, 1, 1, 1, 1, 1, 1]),
        held_out=np.array([False, True, True, True, True, True, True, True, True]),
        weight=np.array([1, 1, 3, 1, 1, 1, 1, 1, 1], np.float32),
    )
    place, share = adapters._held_out_block(given, 2, 3)
    assert place.tolist() == [[1, 2, 1], [3, 5, 7]]
    assert share.tolist() == [[0.25, 0.75, 0], pytest.approx([1 / 3] * 3)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"windows": np.zeros((4, STEPS, FEATURES))}, r"windows must be int8 \(n, 4, 10\); got float64 \(4, 4, 10\)"),
        ({"tenant": np.zeros(3, int)}, r"lengths, tenant and group must be \(4,\) .* got \(4,\), \(3,\) and \(4,\)"),
        ({"lengths": np.array([1, 2, 3, 5])}, "lengths must be 1 to 4; got 1 to 5"),
        ({"tenant": np.array([0, 1, 2, 1])}, "tenant must be 0 to 1; got 0 to 2"),
        ({"group": np.array([0, 0, -1, 0])}, "group must be 0 to 4294967295; got -1 to 0"),
    ],
)
def test_input_that_does_not_belong_together_is_refused(
    backbone: Arrays, changed: dict[str, NDArray[np.generic]], message: str
) -> None:
    windows, lengths = cycling_windows(0, 4)
    nothing = np.zeros(4, np.int64)
    given: dict[str, Any] = {"windows": windows, "lengths": lengths, "tenant": nothing, "group": nothing} | changed
    with pytest.raises(ValueError, match=message):
        fit_adapters(**given, backbone=backbone, tenants=2, seed=1, how=HOW)


@pytest.mark.gpu
def test_a_gpu_fits_adapters_that_serve_as_well(backbone: Arrays, fitted: Arrays) -> None:
    windows, lengths, tenant = traffic([PER_TENANT] * 3)
    how = replace(HOW, device="cuda")
    arrays = fit_adapters(windows, lengths, tenant, backbone, group=groups(720), tenants=3, seed=1, how=how)
    there, here = SequenceBank(backbone | arrays), SequenceBank(backbone | fitted)
    for tenant_row in (1, 2):
        ours, theirs = errors(here, tenant_row, tenant_row).mean(), errors(there, tenant_row, tenant_row).mean()
        assert theirs < 1.2 * ours
