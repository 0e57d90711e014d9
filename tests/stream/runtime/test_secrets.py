"""No secret is in anything that a command says, whatever it does, at debug level, librdkafka's own words included."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.kafka.secured import ADMIN, SecuredKafka
from models.embedder import StaticEmbedder
from tests.stream.releases import write
from tidegate.cli import MODULES
from tidegate.keys import signing_key

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[3]
PREFIX = "secret."
UID = "0" * 32
WRONG = "wrong-but-secret-all-the-same"


class Given:
    """The environment of one run: secrets, each by the way it is meant to be given, and where things are."""

    def __init__(self, broker: SecuredKafka, folder: Path, password: str) -> None:
        self.folder = folder
        self.key = folder / "signing.pem"
        signing_key(self.key)
        (folder / "password").write_text(password + "\n")
        client = {
            **broker.open_client(ADMIN),
            "sasl.password.file": str(folder / "password"),
            "ssl.certificate.location": str(broker.certificates.client),
            "ssl.key.location": str(broker.certificates.client_key),
            "ssl.key.password": broker.certificates.password,
        }
        self.environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "TIDEGATE_TOPICS__PREFIX": PREFIX,
            "TIDEGATE_TOPICS__PARTITIONS": "1",
            "TIDEGATE_RELEASE__DIRECTORY": str(folder / "releases"),
            "TIDEGATE_RELEASE__SIGNING_KEY_FILE": str(self.key),
            "TIDEGATE_FEEDBACK__SIGNING_KEY_FILE": str(self.key),
            "TIDEGATE_FEEDBACK__DIRECTORY": str(folder / "feedback"),
            "TIDEGATE_TRAINER__DIRECTORY": str(folder / "trainer"),
            "TIDEGATE_MLFLOW__TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            **{f"TIDEGATE_KAFKA__PROPERTIES__{name.upper().replace('.', '_')}": client[name] for name in client},
        }
        self.secrets = [password, broker.certificates.password, *self.key.read_text().splitlines()[1:-1]]

    def debugging(self) -> dict[str, str]:
        """With every word of librdkafka's. Faust has no such setting, and refuses it."""
        return {**self.environment, "TIDEGATE_KAFKA__PROPERTIES__DEBUG": "all"}

    def seen_in(self, said: str) -> list[str]:
        """Which secrets are in what was said, as they are or as base64, alone or as SASL's PLAIN sends them."""
        forms = {
            secret: [secret, *(base64.b64encode(each.encode()).decode() for each in (secret, f"\0{ADMIN}\0{secret}"))]
            for secret in self.secrets
        }
        return [secret for secret, spelled in forms.items() if any(form in said for form in spelled)]


def commands(folder: Path, source: str) -> list[list[str]]:
    """Every command that ends by itself, with something to do."""
    events, release = f"{PREFIX}genai.gateway.events.v1", str(folder / "release")
    out = {name: str(folder / name) for name in ("replayed", "trained", "evaluated", "state", "acls.sh")}
    return [
        ["version"], ["config", "show"], ["config", "show", "--json"],
        ["topics", "create", "--source-topic", source], ["topics", "check", "--source-topic", source],
        ["topics", "acls", "--source-topic", source, "--out", out["acls.sh"]], ["topics", "acls", "--json"],
        ["ingest", "--source-topic", source, "--until-end", "--log-format", "json"],
        ["score", "--release", release, "--until-end", "--instance-id", "one"],
        ["replay", "--topic", events, "--release", release, "--out", out["replayed"]],
        ["explain", "f" * 64, "--topic", events, "--release", release],
        ["train", "--topic", events, "--seed", "1", "--out", out["trained"]],
        ["evaluate", "--corpus", str(folder / "no-corpus"), "--only", "session", "--out", out["evaluated"]],
        ["state", "export", "--out", out["state"]], ["state", "inspect"],
        ["verdict", UID, "--verdict-id", "2", "--analyst", "ada"],
        ["exceptions", "list"],
        ["exceptions", "add", "--action", "exception", "--tenant", "t", "--days", "1", "--who", "a", "--why", "b"],
        ["release", "list"], ["release", "show", release], ["release", "verify", release],
        ["release", "promote", release, "--no-wait"], ["release", "rollback", "--no-wait"],
        ["canary", "--source-topic", source, "--once", "--timeout", "0.2"],
    ]  # fmt: skip


def driven(environment: Mapping[str, str], wanted: list[list[str]]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.stream.runtime.secrets_driver"],
        input=json.dumps(wanted), env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip


def codes(done: subprocess.CompletedProcess[str]) -> dict[str, set[int]]:
    """Command -> its exit codes."""
    found: dict[str, set[int]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("EXIT "):
            _, code, command, *_ = line.split()
            found.setdefault(command, set()).add(int(code))
    return found


def test_no_command_says_a_secret_when_it_succeeds(secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    given = Given(secured_kafka, tmp_path, secured_kafka.passwords[ADMIN])
    write(tmp_path / "release", StaticEmbedder.load(device="cpu").space_id)
    wanted = commands(tmp_path, f"{PREFIX}raw")
    done = driven(given.debugging(), wanted)
    said = done.stdout + done.stderr
    assert given.seen_in(said) == []
    assert "SASL" in done.stderr, "librdkafka was to tell all"
    ended = codes(done)
    assert set(ended) | {"feedback", "trainer"} == set(MODULES) | {"version"}, done.stderr[-600:]
    for command in ("config", "topics", "ingest", "score", "replay", "state", "exceptions"):
        assert ended[command] == {0}, (command, ended)


def test_no_command_says_a_secret_when_it_is_refused(secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    given = Given(secured_kafka, tmp_path, WRONG)
    given.secrets.append(secured_kafka.passwords[ADMIN])
    write(tmp_path / "release", StaticEmbedder.load(device="cpu").space_id)
    wanted = [*commands(tmp_path, f"{PREFIX}raw"), ["trainer"]]
    done = driven(given.debugging(), wanted)
    faust = driven(given.environment, [["feedback"]])
    said = done.stdout + done.stderr + faust.stdout + faust.stderr
    assert given.seen_in(said) == []
    ended = {**codes(done), **codes(faust)}
    for command in ("ingest", "score", "state", "canary", "trainer", "feedback"):
        assert ended[command] == {3}, (command, ended, said[-600:])
    assert "the broker refuses the credentials" in said


def test_a_key_that_cannot_be_opened_is_told_without_its_password(secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    given = Given(secured_kafka, tmp_path, secured_kafka.passwords[ADMIN])
    given.secrets.append(WRONG)
    wrong = {"TIDEGATE_KAFKA__PROPERTIES__SSL_KEY_PASSWORD": WRONG}
    done = driven(given.debugging() | wrong, [["topics", "check"], ["ingest", "--source-topic", "raw"]])
    faust = driven(given.environment | wrong, [["feedback"]])
    said = done.stdout + done.stderr + faust.stdout + faust.stderr
    assert given.seen_in(said) == []
    assert all(code in (2, 3) for found in (codes(done), codes(faust)) for each in found.values() for code in each)


@pytest.mark.parametrize("command", ["feedback", "trainer"])
def test_no_service_says_a_secret_while_it_runs(secured_kafka: SecuredKafka, tmp_path: Path, command: str) -> None:
    given = Given(secured_kafka, tmp_path, secured_kafka.passwords[ADMIN])
    prepared = driven(given.environment, [["topics", "create", "--source-topic", f"{PREFIX}raw"]])
    assert prepared.returncode == 0, prepared.stderr
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        service = subprocess.Popen(
            [sys.executable, "-m", "tests.stream.runtime.secrets_driver"], cwd=ROOT, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=stderr, text=True,
            env=given.environment if command == "feedback" else given.debugging(),
        )  # fmt: skip
        assert service.stdin is not None
        assert service.stdout is not None
        service.stdin.write(json.dumps([[command]]))
        service.stdin.close()
        ready = service.stdout.readline()
        assert ready.startswith("READY "), log.read_text()[-3_000:]
        url = json.loads(ready.removeprefix("READY "))["http"]
        shown = "".join(urllib.request.urlopen(f"{url}{path}").read().decode() for path in ("/metrics", "/healthz"))
        service.send_signal(signal.SIGTERM)
        rest = service.stdout.read()
        service.stdout.close()
        assert service.wait(120) == 0
    assert given.seen_in(ready + shown + rest + log.read_text(errors="replace")) == []


def test_what_is_looked_for_would_be_found(secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    given = Given(secured_kafka, tmp_path, "hunter-two")
    line = given.key.read_text().splitlines()[1]
    for told in ("password is hunter-two", f"frame {base64.b64encode(b'hunter-two').decode()}", f"key {line}"):
        assert given.seen_in(told) != []
    sent = base64.b64encode(f"\0{ADMIN}\0hunter-two".encode()).decode()
    assert given.seen_in(f"sent {sent}") == ["hunter-two"]
