"""What a service says of itself on `/metrics`."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Scraped:
    """All samples at one moment, by series; differences of two moments read alike.

    Parameters
    ----------
    series
        (Name, sorted labels) -> value.
    """

    series: Mapping[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)

    def total(self, name: str, **labels: str) -> float:
        """Sum of the series of this name that have these labels; 0 where there is none."""
        wanted = labels.items()
        return sum(value for (one, told), value in self.series.items() if one == name and wanted <= dict(told).items())

    def mean(self, name: str, **labels: str) -> float | None:
        """Mean of a histogram's observations, None without any."""
        count = self.total(f"{name}_count", **labels)
        return self.total(f"{name}_sum", **labels) / count if count else None

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """The value below which `share` of a histogram's observations are, linear within a bucket; None without any.

        Where it lies beyond the last bound, that bound.
        """
        bounds = sorted({float(dict(told)["le"]) for one, told in self.series if one == f"{name}_bucket"})
        count = self.total(f"{name}_count", **labels)
        below, lower = 0.0, 0.0
        for bound in bounds if count else ():
            # As the exposition writes it: "0.05", "1.0", "+Inf".
            text = "+Inf" if bound == float("inf") else str(bound)
            within = self.total(f"{name}_bucket", le=text, **labels)
            if within >= share * count:
                if bound == float("inf"):
                    return lower
                return lower + (bound - lower) * (share * count - below) / (within - below)
            below, lower = within, bound
        return None

    def since(self, earlier: Scraped) -> Scraped:
        """What counters and histograms have counted since; a process that began anew starts at nothing."""
        past = earlier.series
        return Scraped(
            {
                key: value - past.get(key, 0.0) if value >= past.get(key, 0.0) else value
                for key, value in self.series.items()
            }
        )

    def joined(self, other: Scraped) -> Scraped:
        """The sum of two processes' series."""
        keys = {**self.series, **other.series}
        return Scraped({key: self.series.get(key, 0.0) + other.series.get(key, 0.0) for key in keys})


def scrape(url: str) -> Scraped:
    """What the service at `url`, as its READY line names it, says now.

    Raises
    ------
    OSError
        When it does not answer.
    """
    with urllib.request.urlopen(f"{url}/metrics", timeout=_TIMEOUT_S) as answer:
        text = answer.read().decode()
    return parsed(text)


def parsed(text: str) -> Scraped:
    r"""Samples of an exposition.

    >>> text = 'a_bucket{le="1.0"} 1\na_bucket{le="3.0"} 3\na_bucket{le="+Inf"} 3\na_sum 5\na_count 3\n'
    >>> told = parsed("# TYPE a histogram\n" + text)
    >>> told.mean("a"), told.quantile("a", 2 / 3)
    (1.6666666666666667, 2.0)
    """
    return Scraped(
        {
            (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )
