import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from stream.config import Settings
from stream.errors import CheckFailed, EnvironmentFault, FencedError, StateError, TidegateError, UsageError
from tidegate import cli

ROOT = Path(__file__).parents[2]
HEAVY = {
    *(
        "numpy",
        "scipy",
        "torch",
        "sentence_transformers",
        "transformers",
        "confluent_kafka",
        "faust",
        "river",
        "rocksdict",
    ),
    *(
        "msgspec",
        "orjson",
        "yaml",
        "prometheus_client",
        "safetensors",
        "cryptography",
        "rich",
        "stream.core",
        "asyncio",
    ),
}


def fresh(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`tidegate` in a process of its own, which then says what it imported."""
    program = (
        "import json, sys\n"
        "from tidegate.cli import main\n"
        "try:\n"
        "    code = main(sys.argv[1:])\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "sys.stdout.write('\\nMODULES ' + json.dumps(sorted(sys.modules)))\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize("arguments", [["--help"], ["version"], ["score", "--help"], ["config", "show"]], ids=" ".join)
def test_help_version_and_configuration_import_nothing_heavy(arguments: list[str]) -> None:
    done = fresh(*arguments)
    assert done.returncode == 0, done.stderr
    modules = set(json.loads(done.stdout.rpartition("MODULES ")[2]))
    assert modules & HEAVY == set()


def test_version_is_the_distributions() -> None:
    done = subprocess.run([sys.executable, "-m", "tidegate.cli", "version"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith(b"tidegate ")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module in the place of `tidegate state`'s, whose `run` a test may set."""
    module = ModuleType("tests_command")
    monkeypatch.setitem(sys.modules, "tests_command", module)
    monkeypatch.setitem(cli.MODULES, "state", "tests_command")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return module


def test_a_command_gets_settings_and_arguments_and_gives_the_exit_code(command: ModuleType) -> None:
    seen: list[object] = []

    def run(settings: Settings, arguments: object) -> int:
        seen.extend([settings.topics.prefix, getattr(arguments, "action", None)])
        return 4

    command.__dict__["run"] = run
    assert cli.main(["state", "inspect", "--topic-prefix", "eu."]) == 4
    assert seen == ["eu.", "inspect"]


@pytest.mark.parametrize("kind", [TidegateError, UsageError, EnvironmentFault, CheckFailed, StateError, FencedError])
def test_a_failure_is_one_line_with_its_exit_code_and_no_traceback(
    command: ModuleType, capsys: pytest.CaptureFixture[str], kind: type[TidegateError]
) -> None:
    def run(settings: Settings, arguments: object) -> int:
        raise kind("topic t is missing. Create it.")

    command.__dict__["run"] = run
    assert cli.main(["state", "inspect"]) == kind.exit_code
    assert capsys.readouterr().err == "tidegate: error: topic t is missing. Create it.\n"


def test_a_missing_package_is_named_with_its_extra(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'confluent_kafka'", name="confluent_kafka")

    monkeypatch.setattr(cli, "import_module", absent)
    assert cli.main(["state", "inspect"]) == 3
    assert "needs the package confluent_kafka" in (said := capsys.readouterr().err)
    assert "pip install 'tidegate[stream]'" in said


def test_wrong_configuration_ends_before_anything_is_imported() -> None:
    done = fresh("score", "--release", "r", environment={"TIDEGATE_BATCH__WAIT": "1", "PATH": ""})
    assert done.returncode == 2
    assert done.stderr == (
        "tidegate: error: there is no key TIDEGATE_BATCH__WAIT; did you mean TIDEGATE_BATCH__WAIT_MS?\n"
    )


def test_a_bug_leaves_its_traceback_in_the_log_and_ends_with_1() -> None:
    program = (
        "import sys, types\n"
        "from tidegate import cli\n"
        "module = sys.modules['broken'] = types.ModuleType('broken')\n"
        "module.run = lambda settings, arguments: 1 / 0\n"
        "cli.MODULES['state'] = 'broken'\n"
        "sys.exit(cli.main(['state', 'inspect', '--log-format', 'json']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert entry["message"] == "a bug, please report it"
    assert "ZeroDivisionError" in entry["exception"]


def test_interrupted_commands_end_without_a_traceback(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def run(settings: Settings, arguments: object) -> int:
        raise KeyboardInterrupt

    command.__dict__["run"] = run
    assert cli.main(["state", "inspect"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("arguments", [["ingest", "--source-topic", "raw"], ["score", "--release", "r"]], ids=" ".join)
def test_a_service_that_is_stopped_while_it_still_imports_ends_with_0(arguments: list[str], number: int) -> None:
    program = (
        "import sys, time\n"
        "from tidegate import cli\n"
        "def slow(name):\n"
        "    print('importing', flush=True)\n"
        "    time.sleep(600)\n"
        "cli.import_module = slow\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=180)
    assert (process.returncode, said) == (0, "")


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    shell = f"{sys.executable} -m tidegate.cli config show | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


@pytest.fixture
def handlers() -> Iterator[None]:
    """What a service sets is taken back."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_numeric_commands_take_one_blas_thread_unless_told_otherwise(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    monkeypatch.setitem(cli.MODULES, "score", "tests_command")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    seen: dict[str, str | None] = {}

    def run(settings: Settings, arguments: object) -> int:
        seen.update({name: os.environ.get(name) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")})
        return 0

    command.__dict__["run"] = run
    assert cli.main(["score", "--release", "r"]) == 0
    assert seen == {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "2"}
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
