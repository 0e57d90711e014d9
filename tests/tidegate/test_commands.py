import argparse
from collections.abc import Iterator
from importlib import import_module

import pytest

from tidegate.cli import MODULES
from tidegate.commands import parse, parser

RANGES = "--from-offset --to-offset --from-time --to-time"
COMMON = "--config --bootstrap-servers --topic-prefix --log-format"
SERVICE_FLAGS = f"{COMMON} --instance-id --group-id --http-listen --until-end"
FLAGS = {
    "ingest": f"--source-topic --format {SERVICE_FLAGS}",
    "score": f"--release --output-prefix --delivery {SERVICE_FLAGS}",
    "replay": f"--input --format --topic {RANGES} --journal --from-state --release --pace --out --report",
    "train": f"--input --topic --format {RANGES} --base --out --seed --task --nproc",
    "topics create": "--source-topic",
    "topics check": "--source-topic",
    "state export": "--out",
    "state inspect": "",
    "canary": f"--source-topic --once --interval --timeout --http-listen {COMMON}",
    "config show": "--config --topic-prefix",
    "replay compare": "",
    "version": "",
}


def every(command: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Each command and subcommand with its parser."""
    if name:
        yield name, command
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for part, sub in action.choices.items():
                yield from every(sub, f"{name} {part}".strip())


COMMANDS = dict(every(parser()))


@pytest.mark.parametrize("name", FLAGS)
def test_a_command_takes_the_flags_that_the_interface_fixes(name: str) -> None:
    taken = {option for action in COMMANDS[name]._actions for option in action.option_strings}
    assert set(FLAGS[name].split()) <= taken


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_an_example_that_parses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse([*name.split(), "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert "example" in text
    for line in text.partition("example")[2].splitlines()[1:]:
        words = line.split()
        # Variables may be set before it.
        at = words.index("tidegate")
        assert all("=" in word for word in words[:at])
        assert parse(words[at + 1 :]).command == name.split(maxsplit=1)[0]


def test_every_command_has_a_module_with_its_run() -> None:
    assert {name.split()[0] for name in COMMANDS} == {*MODULES, "version"}
    for module in MODULES.values():
        assert callable(import_module(module).run)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("scores", "invalid choice: 'scores'"),
        ("score", "required: --release"),
        ("ingest", "required: --source-topic"),
        ("ingest --source-topic t --format otlp", "invalid choice: 'otlp'"),
        ("score --release r --until", "unrecognized arguments: --until"),
        ("replay", "the following arguments are required: --input or --topic, --release, --out"),
        ("replay --input a --topic t --release r --out o", "not allowed with argument"),
        ("replay --input a --release r --out o --from-offset 3", "a file is replayed whole"),
        ("replay --input a --release r --out o --journal topic", "a file is replayed whole"),
        ("replay --topic t --release r --out o --pace x0", "must be full, original or xN, such as x10; got 'x0'"),
        ("replay --topic t --release r --out o --from-time noon", "must be ISO 8601"),
        ("replay compare a", "required: B"),
        ("train --out o", "required: --input or --topic"),
        ("train --input a --out o --seed -1", "must be a whole number of at least 0; got '-1'"),
        ("topics", "required: create|check"),
        ("state export", "required: --out"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_says_what_is_wrong(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        parse(line.split())
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_inputs_may_be_listed_and_repeated() -> None:
    given = parse("replay --input a b --input c --release r --out o".split())
    assert [str(path) for path in given.input] == ["a", "b", "c"]
    assert given.action is None


def test_a_time_without_a_zone_is_utc() -> None:
    given = parse("train --topic t --out o --from-time 2026-11-01T01:00:00+01:00 --to-time 2026-11-01".split())
    assert given.from_time == given.to_time == 1_793_491_200_000


def test_groups_have_the_names_of_the_interface() -> None:
    assert parse("ingest --source-topic t".split()).group_id == "tidegate.ingest"
    given = parse("score --release r".split())
    assert (given.group_id, given.delivery, given.instance_id) == ("tidegate.score", "exactly-once", None)
