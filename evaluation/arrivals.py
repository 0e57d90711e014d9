"""When sessions begin: how often real clients call over days, thinned to what is wanted, with their bursts."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

from schemas.corpus_timeline import unit
from stream.errors import UsageError
from stream.sources.lines import read_lines

CLIENTS, REQUESTS = "clients.jsonl.gz", "requests.jsonl.gz"
WINDOW_S = 600
"""Rates are constant for so long."""
DAY_S = 86_400
DAYS = 14
HOURS = 24
_WINDOWS = DAYS * DAY_S // WINDOW_S
_A_DAY = DAY_S // WINDOW_S
_SHAPE_MIN = {False: 0.05, True: 0.3}
"""Of a Gamma law, and of a Weibull law: coefficients of variation of 4.5 and 5.4. Beyond, one gap takes the day, and
all that is left falls into one minute."""
_SHAPE_MAX = 100.0
_REGULAR_DAYS = DAYS // 2
_NUMBER_MAX = 10**18


@dataclass(frozen=True, slots=True)
class Client:
    """How a client calls in `DAYS` days, window (w,) by window; what lies outside of its trace is its trace again."""

    name: str
    rate: NDArray[np.float64]
    """(w,) calls a second; only its shape is used."""
    weibull: NDArray[np.bool_]
    """(w,) the law of the gaps between calls: Weibull, else Gamma."""
    shape: NDArray[np.float64]
    """(w,) the law's: the smaller, the more calls come in bursts."""

    @property
    def active_days(self) -> int:
        """Days on which it calls at all."""
        return int(self.rate.reshape(DAYS, _A_DAY).any(axis=1).sum())

    def share(self, from_s: float, to_s: float) -> float:
        """Of all its calls, those between two times in seconds."""
        mass = np.interp([from_s, to_s], *self._mass(0, DAYS * DAY_S))
        total = float(self.rate.sum()) * WINDOW_S
        return float(mass[1] - mass[0]) / total if total else 0.0

    def draw(self, from_s: float, to_s: float, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        """Times (count,) of its calls between two times in seconds, in order.

        Calls fall on days as often as the client calls on them. Within a day they are a renewal process whose time runs
        as the client's rate does: the gap before each call has the law of the window in which the call is expected, and
        all are stretched by one factor so that as many come as shall. So days, nights and bursts stay what they are, at
        the pace of a thinner client.
        """
        edges = np.r_[from_s, np.arange(from_s // DAY_S + 1, -(-to_s // DAY_S)) * DAY_S, to_s]
        shares = np.array([self.share(a, b) for a, b in pairwise(edges.tolist())])
        if not shares.any():
            shares = np.diff(edges)
        counts = random.multinomial(count, shares / shares.sum()).tolist()
        days = zip(pairwise(edges.tolist()), counts, strict=True)
        return np.concatenate([np.zeros(0), *(self._renewed(a, b, own, random) for (a, b), own in days if own)])

    def _renewed(self, from_s: float, to_s: float, count: int, random: np.random.Generator) -> NDArray[np.float64]:
        edges, mass = self._mass(from_s, to_s)
        if mass[-1] == 0:
            mass = edges - from_s
        expected = np.interp((np.arange(count + 1) + 0.5) / (count + 1) * mass[-1], mass, edges)
        window = np.minimum(expected // WINDOW_S, _WINDOWS - 1).astype(np.int64)
        shape, weibull = self.shape[window], self.weibull[window]
        # Each of mean 1.
        gaps = random.gamma(shape) / shape
        gaps[weibull] = random.weibull(shape[weibull]) / gamma(1 + 1 / shape[weibull])
        passed = np.cumsum(gaps)
        times: NDArray[np.float64] = np.interp(passed[:-1] / max(passed[-1], 1e-300) * mass[-1], mass, edges)
        return times

    def quiet_hour(self) -> int:
        """The middle one of the six hours of a day, UTC, in which it calls least."""
        by_hour = self.rate.reshape(DAYS, HOURS, -1).sum(axis=(0, 2))
        around = np.array([np.roll(by_hour, 3 - hour)[:6].sum() for hour in range(HOURS)])
        return int(around.argmin())

    def later(self, hours: int) -> Client:
        """The same client in another time zone: another client with the same habits."""
        by = hours * 3600 // WINDOW_S
        turned = {name: np.roll(getattr(self, name), by) for name in ("rate", "weibull", "shape")}
        return replace(self, name=f"{self.name} +{hours} h", **turned)

    def _mass(self, from_s: float, to_s: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Edges (e,) of the windows between two times, and what it has called from the first one to each."""
        inner = np.arange(_WINDOWS + 1, dtype=np.float64) * WINDOW_S
        edges = np.r_[from_s, inner[(inner > from_s) & (inner < to_s)], to_s]
        window = np.minimum((edges[:-1] // WINDOW_S).astype(np.int64), _WINDOWS - 1)
        return edges, np.r_[0.0, np.cumsum(self.rate[window] * np.diff(edges))]


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The clients that tenants are given."""

    clients: Sequence[Client]
    unreadable: int = 0
    """Lines of the files that say nothing."""

    def placed(self, tenants: Iterable[str], seed: int) -> dict[str, Client]:
        """A client for each tenant, by hash: those that call on half of the days first, each once while they last.

        Where there are more tenants, clients come again, hours later; where there is no client, tenants call as often
        at any time.
        """
        clients = self.clients or [steady()]
        order = sorted(clients, key=lambda c: (c.active_days < _REGULAR_DAYS, unit(seed, "client", c.name), c.name))
        placed: dict[str, Client] = {}
        for at, tenant in enumerate(sorted(tenants, key=lambda tenant: (unit(seed, "tenant", tenant), tenant))):
            again, which = divmod(at, len(order))
            hours = 1 + int(unit(seed, "hours", again, tenant) * (DAYS * HOURS - 1)) if again else 0
            placed[tenant] = order[which].later(hours) if hours else order[which]
        return placed


@dataclass(slots=True)
class _Trace:
    """Windows of one client, as they were read."""

    starts: list[float] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    laws: list[tuple[float, bool, float]] = field(default_factory=list)
    """Rate, whether its law is Weibull, and the law's shape."""

    def add(self, start_s: float, length_s: float, rate: float, weibull: bool, shape: float) -> None:
        held = min(max(shape, _SHAPE_MIN[weibull]), _SHAPE_MAX)
        self.starts.append(start_s)
        self.lengths.append(length_s)
        self.laws.append((rate, weibull, held))

    def begin_s(self) -> float:
        return min(self.starts)

    def end_s(self) -> float:
        return max(start + length for start, length in zip(self.starts, self.lengths, strict=True))

    def client(self, name: str, first_day: int, days: int) -> Client:
        """Laid out over `days` days from one on, which are then repeated, or cut.

        The rate of a window of `Client` is the mean of what lies in it, its law the one that lies in it longest.
        """
        n = days * _A_DAY
        rate, weibull, shape, longest = np.zeros(n), np.zeros(n, np.bool_), np.ones(n), np.zeros(n)
        for start, length, law in zip(self.starts, self.lengths, self.laws, strict=True):
            begin_s = start - first_day * DAY_S
            end_s = begin_s + length
            for at in range(int(begin_s // WINDOW_S), min(int(-(-end_s // WINDOW_S)), n)):
                part = (min(end_s, (at + 1) * WINDOW_S) - max(begin_s, at * WINDOW_S)) / WINDOW_S
                rate[at] += law[0] * part
                if part > longest[at]:
                    longest[at], weibull[at], shape[at] = part, *law[1:]
        return Client(name, np.resize(rate, _WINDOWS), np.resize(weibull, _WINDOWS), np.resize(shape, _WINDOWS))


def read_arrivals(folder: Path) -> Arrivals:
    """The clients in `folder`: those of `clients.jsonl.gz`, and the tenants of `requests.jsonl.gz`.

    Raises
    ------
    UsageError
        When a file that is there cannot be read.
    """
    windowed: dict[str, _Trace] = {}
    times: dict[str, list[float]] = {}
    unreadable = 0
    for raw in _lines(folder / CLIENTS):
        name = str(raw.get("client", ""))
        windows = raw.get("windows")
        if not name or not isinstance(windows, list):
            unreadable += 1
            continue
        length = _number(raw.get("window_seconds")) or float(WINDOW_S)
        for window in windows:
            unreadable += not _taken(windowed.setdefault(name, _Trace()), window, length)
    for raw in _lines(folder / REQUESTS):
        at = _number(raw.get("t"))
        if at is None:
            unreadable += 1
        else:
            times.setdefault(str(raw.get("client") or raw.get("tenant") or REQUESTS), []).append(at)
    counted = {name: _counted(own) for name, own in times.items() if name not in windowed or not windowed[name].starts}
    clients = [*_laid_out(windowed), *_laid_out(counted)]
    return Arrivals(sorted((each for each in clients if each.rate.any()), key=lambda each: each.name), unreadable)


def _laid_out(traces: Mapping[str, _Trace]) -> Iterator[Client]:
    """Clients of one file, from the day of the first window."""
    told = {name: trace for name, trace in traces.items() if trace.starts}
    if not told:
        return
    first_day = int(min(trace.begin_s() for trace in told.values()) // DAY_S)
    days = max(1, *(int(-(-trace.end_s() // DAY_S)) - first_day for trace in told.values()))
    for name, trace in told.items():
        yield trace.client(name, first_day, min(days, DAYS))


def steady() -> Client:
    """A client that calls as often at any time, each call for itself."""
    return Client("steady", np.ones(_WINDOWS), np.zeros(_WINDOWS, np.bool_), np.ones(_WINDOWS))


def rng(seed: int, *names: object) -> np.random.Generator:
    """Random numbers that are the same for the same names, on every machine."""
    digest = blake2b("\x1f".join(map(str, (seed, *names))).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def _taken(trace: _Trace, window: object, length_s: float) -> bool:
    """Whether a window [start_s, rate_per_s, cv, law, shape, scale] says something; what need not be there may lack."""
    if not isinstance(window, list) or len(window) < 2:
        return False
    start, rate = _number(window[0]), _number(window[1])
    if start is None or rate is None:
        return False
    law = window[3] if len(window) > 3 else "Gamma"
    cv = _number(window[2]) if len(window) > 2 else None
    shape = _number(window[4]) if len(window) > 4 else None
    weibull = law == "Weibull" and shape is not None
    trace.add(start, length_s, rate, weibull, shape or 1 / max(cv or 1.0, 0.01) ** 2)
    return True


def _counted(times: Sequence[float]) -> _Trace:
    """Windows of a client of which each call is known: a Gamma law has the shape 1/cv²."""
    trace = _Trace()
    by_window: dict[int, list[float]] = {}
    for at in sorted(times):
        by_window.setdefault(int(at // WINDOW_S), []).append(at)
    for window, own in by_window.items():
        gaps = np.array([b - a for a, b in pairwise(own)])
        mean = float(gaps.mean()) if len(gaps) > 1 else 0.0
        cv = float(gaps.std()) / mean if mean else 1.0
        trace.add(float(window * WINDOW_S), WINDOW_S, len(own) / WINDOW_S, False, 1 / max(cv, 0.01) ** 2)
    return trace


def _number(value: object) -> float | None:
    """A number that is not negative, and no larger than a time since 1970 in nanoseconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _NUMBER_MAX:
        return None
    return float(value)


_OBJECT = msgspec.json.Decoder(dict[str, Any])


def _lines(path: Path) -> Iterable[Mapping[str, Any]]:
    """Objects of a file's lines, an empty one for a line that is none; nothing where there is no file."""
    if not path.exists():
        return
    try:
        for line in read_lines(path):
            if line.strip():
                try:
                    yield _OBJECT.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    yield {}
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"arrivals {path} cannot be read: {error}") from error
