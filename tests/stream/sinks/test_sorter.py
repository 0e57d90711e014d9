"""Lines sorted on disk."""

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.sinks.sorter import LineSorter

KEYS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.integers(0, 3)), max_size=60)


@given(keys=KEYS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_spilled_lines_come_as_a_stable_sort_in_memory_would_bring_them(
    tmp_path: Path, keys: list[tuple[int, int, int]]
) -> None:
    sorter = LineSorter(tmp_path, "lines", bytes_max=1000)
    lines = [(key, b'{"line": %d}' % i) for i, key in enumerate(keys)]
    for key, line in lines:
        sorter.add(key, line)
    assert list(sorter) == [line for _, line in sorted(lines, key=lambda pair: pair[0])]
