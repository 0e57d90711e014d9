"""Arrivals: a client's days, nights and bursts are kept when it is thinned."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from evaluation.arrivals import CLIENTS, DAY_S, DAYS, REQUESTS, WINDOW_S, read_arrivals, rng
from stream.errors import UsageError

_A_DAY = DAY_S // WINDOW_S


def write(folder: Path, name: str, lines: list[Any]) -> None:
    with gzip.open(folder / name, "wb") as stream:
        stream.writelines(orjson.dumps(line) + b"\n" for line in lines)


def client(name: str, windows: list[list[Any]]) -> dict[str, Any]:
    return {"client": name, "window_seconds": WINDOW_S, "windows": windows}


def office(law: str = "Gamma", shape: float = 1.0) -> list[list[Any]]:
    """Calls from 08:00 to 16:00 UTC, on working days three times as often."""
    return [
        [float(w * WINDOW_S), 0.3 if w // _A_DAY % 7 < 5 else 0.1, 1.0, law, shape, 2.0]
        for w in range(DAYS * _A_DAY)
        if 8 * 6 <= w % _A_DAY < 16 * 6
    ]


def test_as_many_sessions_as_wanted_fall_on_days_and_hours_as_the_client_calls(tmp_path: Path) -> None:
    write(tmp_path, CLIENTS, [client("a", office())])
    (one,) = read_arrivals(tmp_path).clients
    times = one.draw(7 * DAY_S, 14 * DAY_S, 3400, rng(0))
    assert len(times) == 3400
    assert (np.diff(times) >= 0).all()
    hour = times % DAY_S / 3600
    assert ((hour >= 8) & (hour <= 16)).all()
    # 5 days of 3 parts and 2 of 1 are 17 parts; three binomial standard deviations of a day's share are 70.
    by_day = np.bincount((times // DAY_S).astype(int) - 7, minlength=7)
    assert np.abs(by_day - 3400 * np.array([3, 3, 3, 3, 3, 1, 1]) / 17).max() < 70
    assert one.share(7 * DAY_S, 14 * DAY_S) == pytest.approx(0.5)
    # Between 16:00 and 08:00 six hours are quiet, and so are those around their middle.
    assert one.quiet_hour() in {19, 20, 21, 22, 23, 0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize(("law", "shape", "cv"), [("Gamma", 4.0, 0.5), ("Gamma", 0.25, 2.0), ("Weibull", 0.5, 5**0.5)])
def test_gaps_within_a_day_have_the_law_of_their_windows(tmp_path: Path, law: str, shape: float, cv: float) -> None:
    # A Gamma law's coefficient of variation is 1/sqrt(shape); a Weibull law's of shape 1/2 is sqrt(5).
    write(tmp_path, CLIENTS, [client("a", [[float(w * WINDOW_S), 1.0, cv, law, shape, 1.0] for w in range(_A_DAY)])])
    (one,) = read_arrivals(tmp_path).clients
    gaps = np.diff(one.draw(0, DAY_S, 4000, rng(1)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.12)


def test_a_trace_that_is_shorter_comes_again(tmp_path: Path) -> None:
    write(tmp_path, CLIENTS, [client("a", [[3600.0, 2.0, 1.0, "Gamma", 1.0, 0.5]])])
    (one,) = read_arrivals(tmp_path).clients
    assert one.active_days == DAYS
    times = one.draw(0, DAYS * DAY_S, 50, rng(2))
    assert ((times % DAY_S >= 3600) & (times % DAY_S <= 4200)).all()


def test_a_trace_of_another_file_comes_again_by_itself_and_begins_on_its_own_first_day(tmp_path: Path) -> None:
    write(tmp_path, CLIENTS, [client("a", office())])
    # An hour of calls, told in seconds since 1970: a Wednesday from 13:46 UTC on.
    write(tmp_path, REQUESTS, [{"tenant": "x", "t": 1_700_055_999.0 + 6 * call} for call in range(600)])
    one, other = read_arrivals(tmp_path).clients
    assert (one.name, other.name) == ("a", "x")
    assert other.active_days == DAYS
    hour = other.draw(0, DAYS * DAY_S, 200, rng(3)) % DAY_S / 3600
    assert ((hour >= 13.66) & (hour <= 14.84)).all()


def test_windows_of_another_length_keep_the_rates(tmp_path: Path) -> None:
    # Minutes: of the first ten every other one has calls, the next ten have none; then an hour as one window.
    minutes = {"client": "a", "window_seconds": 60, "windows": [[60.0 * at, 0.5] for at in range(0, 10, 2)]}
    hours = {"client": "b", "window_seconds": 3600, "windows": [[3600.0, 0.25]]}
    write(tmp_path, CLIENTS, [minutes, hours])
    one, other = read_arrivals(tmp_path).clients
    assert one.rate[:3].tolist() == pytest.approx([0.25, 0, 0])
    assert other.rate[5:13].tolist() == pytest.approx([0, *[0.25] * 6, 0])


def test_requests_are_a_client_a_tenant_with_the_spread_of_their_gaps(tmp_path: Path) -> None:
    # Gaps of 1 s and 3 s in turn: mean 2, standard deviation 1, and so a Gamma law of shape 4.
    calls = np.cumsum(np.tile([1.0, 3.0], 200)).tolist()
    write(tmp_path, REQUESTS, [{"tenant": "x", "t": at} for at in calls])
    (one,) = read_arrivals(tmp_path).clients
    assert one.name == "x"
    assert one.shape[0] == pytest.approx(4.0, rel=0.02)
    assert one.rate[0] == pytest.approx(0.5, rel=0.02)


def test_each_tenant_has_a_client_of_its_own_while_they_last_and_then_one_of_another_time_zone(tmp_path: Path) -> None:
    rare = [[0.0, 1.0, 1.0, "Gamma", 1.0, 1.0]]
    last = [float((DAYS * _A_DAY - 1) * WINDOW_S), 1e-9, 1.0, "Gamma", 1.0, 1.0]
    write(tmp_path, CLIENTS, [client("a", office()), client("b", office()), client("rare", [*rare, last])])
    tenants = [f"t{i}" for i in range(5)]
    arrivals = read_arrivals(tmp_path)
    placed = arrivals.placed(tenants, seed=3)
    assert placed.keys() == set(tenants)
    names = [one.name for one in placed.values()]
    assert names == [one.name for one in arrivals.placed(reversed(tenants), seed=3).values()]
    assert set(names[:2]) == {"a", "b"}
    assert names[2] == "rare"
    assert all(" +" in name for name in names[3:])
    assert placed[list(placed)[3]].rate.sum() == pytest.approx(arrivals.clients[0].rate.sum())


def test_without_arrivals_tenants_call_at_any_time(tmp_path: Path) -> None:
    arrivals = read_arrivals(tmp_path)
    assert arrivals.clients == []
    times = arrivals.placed(["t"], 0)["t"].draw(0, DAY_S, 1000, rng(0))
    # Each sixth of the day has a sixth of the calls; three standard deviations are 36.
    assert np.abs(np.histogram(times, 6, (0, DAY_S))[0] - 1000 / 6).max() < 36


def test_lines_that_say_nothing_are_counted(tmp_path: Path) -> None:
    write(tmp_path, CLIENTS, [client("a", [[0.0, 1.0], ["x"], [0.0, None]]), [1], {"client": "b"}])
    write(tmp_path, REQUESTS, [{"t": "soon"}])
    arrivals = read_arrivals(tmp_path)
    assert [one.name for one in arrivals.clients] == ["a"]
    assert arrivals.unreadable == 5


def test_numbers_that_no_time_has_are_lines_that_say_nothing(tmp_path: Path) -> None:
    write(tmp_path, CLIENTS, [client("a", [[0.0, 1.0], [1.7e308, 1.0]])])
    with gzip.open(tmp_path / REQUESTS, "wb") as stream:
        stream.write(b'{"t": ' + b"9" * 400 + b"}\n")
    arrivals = read_arrivals(tmp_path)
    assert [one.name for one in arrivals.clients] == ["a"]
    assert arrivals.unreadable == 2


def test_a_file_that_is_not_packed_is_said(tmp_path: Path) -> None:
    (tmp_path / CLIENTS).write_bytes(b"{}")
    with pytest.raises(UsageError, match=r"clients.jsonl.gz cannot be read"):
        read_arrivals(tmp_path)
