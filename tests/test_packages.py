import json
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SHIPPED = ("tidegate", "schemas", "models", "stream", "evaluation")


def test_a_packages_init_stays_empty_so_that_no_import_hides_in_it() -> None:
    inits = [path for package in SHIPPED for path in (ROOT / package).rglob("__init__.py")]
    assert len(inits) >= len(SHIPPED)
    assert [path for path in inits if path.read_bytes()] == []


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for package in (*SHIPPED, "deploy", "benchmarks") for path in (ROOT / package).rglob("*.py")}
    # Scripts that made the weights are kept beside them, and are imported by nothing.
    folders.discard(ROOT / "models" / "weights")
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("module", ["stream.replay", "stream.core", "stream.sources.file", "stream.steps.ingest"])
def test_what_replays_without_a_broker_loads_none(module: str) -> None:
    program = f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(json.loads(done.stdout))
    assert modules & {"confluent_kafka", "faust", "prometheus_client", "stream.runtime"} == set()
    assert modules & {"torch", "sentence_transformers", "scipy"} == set()


def test_the_lock_pins_every_dependency_by_hash_and_names_no_host() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|--trusted-host", lock)
    pins = set(re.findall(r"^([a-z0-9][a-z0-9._-]*)==\S+", lock, re.MULTILINE))
    assert len(pins) == lock.count("== ") + len(re.findall(r"^[a-z0-9][^\n]*==", lock, re.MULTILINE))
    for block in re.split(r"\n(?=[a-z0-9])", lock)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]
    extras = PROJECT["project"]["optional-dependencies"]
    named = {re.split(r"[<>=!~;\[ ]", one)[0].lower().replace("_", "-") for extra in extras.values() for one in extra}
    assert named <= pins


def test_the_wheel_holds_modules_data_and_command_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for package in (*SHIPPED, "tests", "benchmarks", "deploy"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    program = "import setuptools.build_meta as build, sys; build.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=source, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        commands = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert "tidegate = tidegate.cli:main" in commands
    roots = {name.partition("/")[0] for name in names if ".dist-info" not in name}
    assert roots == set(SHIPPED)
    data = [
        *(ROOT / "schemas" / "topics").glob("*.yaml"),
        *(ROOT / "schemas" / "json").glob("*.json"),
        *(ROOT / "models" / "weights" / "static-minilm-256").iterdir(),
        *(ROOT / "models" / "weights" / "token-tagger").iterdir(),
    ]
    assert {path.suffix for path in data} >= {".yaml", ".json", ".safetensors", ".txt", ""}
    modules = [path for package in SHIPPED for path in (ROOT / package).rglob("*.py") if path.parent.name != "weights"]
    assert {str(path.relative_to(ROOT)) for path in [*data, *modules]} - names == set()
