"""The local Prometheus: the file of docker-compose.yml with other addresses."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.prometheus.local import LocalPrometheus, PrometheusUnavailable, configuration, fetch, tool
from tests.deploy.promtool import needed


def test_its_configuration_has_the_jobs_of_the_file_with_the_given_addresses() -> None:
    given = configuration({"score": ["127.0.0.1:1", "127.0.0.1:2"]})
    assert given["scrape_configs"] == [
        {"job_name": "score", "static_configs": [{"targets": ["127.0.0.1:1", "127.0.0.1:2"]}]}
    ]


def test_a_job_that_the_file_does_not_know_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"prometheus.yml has the jobs ingest, score, feedback, trainer, canary, gateway; got scorer"
    ):
        configuration({"scorer": ["127.0.0.1:1"]})


def test_without_prometheus_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrometheusUnavailable, match=r"promtool is not here: run 'apt-get install prometheus'"):
        tool("promtool", tmp_path)


def test_where_there_is_no_apt_fetching_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PrometheusUnavailable, match="fetched with apt-get and dpkg-deb, which are not here"):
        fetch(tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_it_scrapes_answers_and_is_gone_afterwards(tmp_path: Path) -> None:
    prometheus = LocalPrometheus({}, tmp_path)
    try:
        with needed():
            prometheus.start(180)
        assert [series["value"][1] for series in prometheus.query("vector(7)")] == ["7"]
        with pytest.raises(ValueError, match="parse error"):
            prometheus.query("sum(")
        url = prometheus.url
    finally:
        prometheus.stop()
    assert prometheus.url == ""
    assert url.startswith("http://127.0.0.1:")
