"""docker-compose.yml against the specification, the code and the repository: no Docker is needed to see it fit."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from deploy.kafka import local
from stream.runtime.settings import read_settings
from tidegate import keys
from tidegate.commands import parse
from tidegate.stack import compose, feed

ROOT = Path(__file__).parents[2]
CUDA = ROOT / "deploy" / "compose.cuda.yml"
GIVEN: dict[str, Any] = yaml.safe_load(compose.COMPOSE.read_text())
SERVICES = compose.services()
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("tidegate:")}
COMMANDS = ("topics", "train", "ingest", "score", "feedback", "trainer", "canary")
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
SCRAPED = ("ingest", "score", "feedback", "trainer", "canary")


def validator() -> Draft202012Validator:
    """Of the Compose specification, as check-jsonschema ships it."""
    package = find_spec("check_jsonschema")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
    return Draft202012Validator(json.loads(path.read_text()))


@pytest.mark.parametrize("path", [compose.COMPOSE, CUDA], ids=lambda path: path.name)
def test_it_keeps_to_the_compose_specification(path: Path) -> None:
    errors = [
        f"{error.json_path}: {error.message}" for error in validator().iter_errors(yaml.safe_load(path.read_text()))
    ]
    assert not errors


def test_the_specification_refuses_what_it_does_not_know() -> None:
    broken = {"services": {"a": {"image": "x", "comand": ["y"]}}}
    assert list(validator().iter_errors(broken))


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not here")
def test_docker_compose_itself_reads_it() -> None:
    command = ["docker-compose", "-f", str(compose.COMPOSE), "--profile", "demo", "config", "--services"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == set(SERVICES)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_one_that_tidegate_takes(name: str) -> None:
    given = parse(compose.command(name, {}))
    assert given.command == name


def test_no_command_of_the_image_is_left_out_here() -> None:
    assert set(OURS) == {*COMMANDS, "feeder", "keys"}


def test_the_feeder_is_a_profile_and_a_module_that_takes_its_arguments() -> None:
    feeder = SERVICES["feeder"]
    assert feeder["profiles"] == ["demo"]
    assert feeder["entrypoint"] == ["python", "-m", feed.__name__]
    command = [sys.executable, *feeder["entrypoint"][1:], *feeder["command"], "--help"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert feeder["command"][1] == compose.SOURCE


def test_the_sample_is_trained_on_once(tmp_path: Path) -> None:
    """The shell line around `train`, run with a `tidegate` that says what it was asked for."""
    script = SERVICES["train"]["entrypoint"][2].replace("$$", "$").replace("/releases/sample", str(tmp_path / "sample"))
    (tmp_path / "tidegate").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "tidegate").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    command = ["sh", "-c", script, SERVICES["train"]["entrypoint"][3], *compose.command("train", {})]

    def said() -> str:
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout

    assert said().split() == compose.command("train", {})
    (tmp_path / "sample").mkdir()
    (tmp_path / "sample" / "manifest.json").touch()
    assert said() == ""


def test_what_is_trained_is_what_is_served() -> None:
    trained, served = parse(compose.command("train", {})), parse(compose.command("score", {}))
    assert str(trained.out) == served.release == compose.RELEASE
    assert (ROOT / trained.input[0]).is_file()
    assert SERVICES["score"]["depends_on"]["train"]["condition"] == "service_completed_successfully"


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting(name: str) -> None:
    variables = {key: str(value) for key, value in OURS[name]["environment"].items()}
    settings = read_settings({}, variables)
    assert len(settings.origins) == len(variables), settings.origins


def test_a_variable_that_is_no_setting_would_be_found_out() -> None:
    with pytest.raises(Exception, match="TIDEGATE_KAFKA__BROKERS"):
        read_settings({}, {"TIDEGATE_KAFKA__BROKERS": "kafka:9092"})


def test_the_cuda_file_adds_a_setting_that_is_known() -> None:
    [service] = yaml.safe_load(CUDA.read_text())["services"].values()
    assert read_settings({}, service["environment"]).embedder.device == "cuda"


def test_the_services_find_the_broker_under_the_address_that_it_advertises() -> None:
    advertised = dict(
        part.split("://") for part in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    )
    for service in OURS.values():
        assert service["environment"]["TIDEGATE_KAFKA__BOOTSTRAP_SERVERS"] == advertised["PLAINTEXT"]
        assert service["networks"] == SERVICES["kafka"]["networks"]
    [published] = SERVICES["kafka"]["ports"]
    assert advertised["HOST"] == f"localhost:{published.split(':')[1]}"


def test_the_broker_is_the_one_of_the_tests_and_takes_records_as_large() -> None:
    pom = (ROOT / "deploy/kafka/pom.xml").read_text()
    version = re.search(r"<artifactId>kafka_2\.13</artifactId>\s*<version>([\d.]+)</version>", pom)
    assert version is not None
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version[1]}"
    environ = SERVICES["kafka"]["environment"]
    ours = local.server_properties(1, 2, Path("/data"))
    for key in ("message.max.bytes", "replica.fetch.max.bytes", "auto.create.topics.enable"):
        assert environ["KAFKA_" + key.upper().replace(".", "_")] == ours[key]


def test_every_port_is_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


@pytest.mark.parametrize("name", SCRAPED)
def test_prometheus_and_the_health_check_ask_where_the_service_listens(name: str) -> None:
    port = parse(compose.command(name, {})).http_listen.split(":")[1]
    jobs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    [job] = [job for job in jobs if job["job_name"] == name]
    assert job["dns_sd_configs"][0] | {"refresh_interval": ""} == {
        "names": [name], "type": "A", "port": int(port), "refresh_interval": "",
    }  # fmt: skip
    assert f"http://127.0.0.1:{port}/readyz" in " ".join(SERVICES[name]["healthcheck"]["test"])


def test_the_health_check_fails_where_nobody_answers() -> None:
    words = SERVICES["score"]["healthcheck"]["test"]
    assert words[:3] == ["CMD", "python", "-c"]
    done = subprocess.run([sys.executable, "-c", words[3].replace("9464", "9")], capture_output=True, check=False)
    assert done.returncode == 1


def test_every_mounted_path_is_in_the_repository_and_every_volume_declared() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).exists(), mount
                assert mount.endswith(":ro")
            else:
                assert source in GIVEN["volumes"], mount


def test_grafana_finds_datasource_and_dashboard_where_they_are_mounted() -> None:
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/tidegate.yml").read_text())["providers"][
        0
    ]
    assert provider["options"]["path"] == mounts["./deploy/grafana/dashboards"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "deploy/grafana/dashboards" / Path(home).name).is_file()
    source = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ][0]
    assert source["url"] == "http://prometheus:9090"


def test_containers_of_the_image_may_write_to_tmp_and_their_volume_alone() -> None:
    for service in OURS.values():
        assert service["read_only"] is True
        assert service["tmpfs"] == ["/tmp"]
        assert service["cap_drop"] == ["ALL"]
    writable = [
        name for name, service in OURS.items() if any(not v.endswith(":ro") for v in service.get("volumes", ()))
    ]
    assert writable == ["keys", "train", "feedback", "trainer"]


def test_the_private_key_is_where_releases_are_made_and_nowhere_else() -> None:
    holders = {name for name, service in OURS.items() if any("keys:" in v for v in service.get("volumes", ()))}
    assert holders == {"keys", "train", "trainer"}
    trusting = {name: v for name, service in OURS.items() for v in service.get("volumes", ()) if "trusted:" in v}
    assert trusting == {"keys": "trusted:/trusted", "score": "trusted:/trusted:ro", "trainer": "trusted:/trusted:ro"}
    for name in ("train", "trainer"):
        assert SERVICES[name]["environment"]["TIDEGATE_RELEASE__SIGNING_KEY_FILE"] == SERVICES["keys"]["command"][0]


@pytest.mark.parametrize("name", ["score", "trainer"])
def test_what_is_signed_here_is_trusted_here(name: str, tmp_path: Path) -> None:
    """The shell line around `tidegate`, run with one that says which key it was told to trust."""
    trusted = SERVICES["keys"]["command"][1]
    assert keys.main([str(tmp_path / "signing.pem"), str(tmp_path / "trusted.key")]) == 0
    script = SERVICES[name]["entrypoint"][2].replace("$$", "$").replace(trusted, str(tmp_path / "trusted.key"))
    (tmp_path / "tidegate").write_text('#!/bin/sh\necho "$TIDEGATE_RELEASE__TRUSTED_KEYS" "$@"\n')
    (tmp_path / "tidegate").chmod(0o755)
    command = ["sh", "-c", script, SERVICES[name]["entrypoint"][3], name, "x y"]
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    said = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"{(tmp_path / 'trusted.key').read_text().strip()} {name} x y"


def test_the_image_is_built_for_either_device_from_files_that_the_build_gets() -> None:
    build = OURS["score"]["build"]
    assert (ROOT / build["dockerfile"]).is_file()
    assert set(build["args"]) == set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / path).exists() for path in kept)
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for path in line.split()[:-1]:
            assert path == "." or any(path.startswith(one) for one in kept), line
    assert {"evaluation", "models", "sample", "schemas", "stream", "tidegate", "pyproject.toml"} <= set(kept)


def test_the_image_runs_as_nobody_special_and_names_no_other_host() -> None:
    assert re.search(r"^USER (?!root|0)\S+$", DOCKERFILE, re.MULTILINE)
    assert 'ENTRYPOINT ["tidegate"]' in DOCKERFILE
    for path in (compose.COMPOSE, ROOT / "deploy/Dockerfile", CUDA):
        hosts = set(re.findall(r"https?://([\w.]+)", path.read_text()))
        assert hosts <= {"localhost", "127.0.0.1"}, path


@pytest.mark.parametrize(("flags", "torch"), [([], True), (["--without-torch"], False)])
def test_the_image_gets_hashed_packages_of_the_lock_and_none_of_development(flags: list[str], torch: bool) -> None:
    command = [sys.executable, "deploy/requirements.py", "stream", "--also", "setuptools", *flags]
    part = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^(\S+)==(\S+) \\$", part, re.MULTILINE)
    assert all(f"\n{name}=={version} \\\n" in lock for name, version in pins)
    assert part.count("--hash=sha256:") >= len(pins) > 50
    names = {name for name, _ in pins}
    assert {"confluent-kafka", "numpy", "msgspec", "prometheus-client", "setuptools"} <= names
    assert not {"pytest", "mypy", "ruff", "hypothesis", "litellm"} & names
    assert ("torch" in names) is torch
    assert any(name.startswith("nvidia-") for name in names) is torch
