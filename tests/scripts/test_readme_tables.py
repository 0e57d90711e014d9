"""README's tables say what the code declares."""

from scripts.readme_tables import README, config_table, metrics_table


def test_the_readme_lists_every_key_with_its_default() -> None:
    assert config_table() in README.read_text()


def test_the_readme_lists_every_metric_with_its_labels() -> None:
    assert metrics_table() in README.read_text()
