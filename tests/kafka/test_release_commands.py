"""`tidegate release` and `tidegate exceptions` as commands, on real topics."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self

import orjson
import pytest

from schemas.manifest import InputRange, LabelsUsed
from stream.runtime.release.announce import announce
from stream.runtime.release.registry import manifest_sha256
from stream.runtime.release_store import MANIFEST
from stream.steps.route import partition_of_key
from tests.kafka.harness import FINDINGS, PARTITIONS
from tests.kafka.loop_topics import CONTROLS, LABELS, RELEASES, VERDICTS, Loop
from tests.stream.runtime.release.made import make
from tidegate.cli import main

pytestmark = pytest.mark.kafka
OVERRIDE = ("--override-gate", "--why", "tried in shadow")
UID = "80c8d69533d93f11fa7f7c08cf2d14b6"
EXAMPLES = Path(__file__).parents[2] / "schemas" / "examples"


@pytest.fixture
def loop(kafka: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop(kafka, topic_prefix, tmp_path)
    monkeypatch.setenv("TIDEGATE_RELEASE__DIRECTORY", loop.settings.release.directory)
    monkeypatch.setenv("TIDEGATE_RELEASE__TRUSTED_KEYS", loop.settings.release.trusted_keys[0])
    return loop


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(loop: Loop, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: str) -> tuple[int, str, str]:
        waiting = (
            arguments[:1] == ("release",) and arguments[1] in ("promote", "rollback") and "--timeout" not in arguments
        )
        code = main([*arguments, *loop.flags, *(("--timeout", "180") if waiting else ())])
        out, errors = capsys.readouterr()
        return code, out, errors

    return command


class Scorer:
    """Follows every control that comes, as a scorer's journal would tell, or refuses it."""

    def __init__(self, loop: Loop, refused: str | None = None) -> None:
        self._stopping = Event()
        self._thread = Thread(target=self._follow, args=(loop, len(loop.controls()), refused))

    def _follow(self, loop: Loop, offset: int, refused: str | None) -> None:
        while not self._stopping.wait(0.1):
            controls = loop.controls()
            while offset < len(controls):
                loop.follow(offset, *range(PARTITIONS), refused=refused)
                offset += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()


def test_promotion_and_rollback_are_announced_and_waited_for(loop: Loop, run: Run) -> None:
    (first, _), (second, path) = loop.make(1), loop.make(2, parent="r-first", days=1)
    loop.serve(first)
    with Scorer(loop):
        code, out, errors = run("release", "promote", second.name, *OVERRIDE, "--who", "ada@soc")
        assert (code, errors) == (0, "")
        assert f"{second.name} is asked for by control 0; in service until then: {first.name}." in out
        assert "partition 1: from offset 7 on, after " in out
        assert f"{second.name} is served by all of 2 partitions, " in out
        (said,) = loop.cluster.values(RELEASES)
        assert (said["release"], said["promoted"]) == (second.name, True)
        assert said["decision"] == "Promoted past the gate by ada@soc: tried in shadow."
        assert loop.controls()[0]["value"]["why"] == "past the gate: tried in shadow"

        code, out, errors = run("release", "list", "--json")
        listed = {each["release"]: each for each in orjson.loads(out)["releases"]}
        assert (listed[second.name]["alias"], listed[second.name]["partitions"]) == ("champion", [0, 1])
        assert (listed[first.name]["alias"], listed[first.name]["partitions"]) == (None, [])

        code, out, errors = run("release", "rollback", "--who", "bob@soc")
        assert (code, errors) == (0, "")
        assert f"back to {first.name}, asked for by control 1; in service until then: {second.name}." in out
        assert [each["release"] for each in loop.cluster.values(RELEASES)][-1] == first.name
        assert run("release", "rollback")[0] == 0
    controls = loop.controls()
    assert [each["value"]["release"] for each in controls] == [second.name, first.name, second.name]
    assert [each["issuer"] for each in controls] == ["ada@soc", "bob@soc", "operator"]
    assert controls[2]["value"]["manifest_sha256"] == manifest_sha256(path)


def test_a_gates_decision_stays_beside_the_promotion(loop: Loop, run: Run) -> None:
    first, path = loop.make(1)
    announce(loop.settings, first, path, decision="Recall 0.91, within the floor.", promoted=False, passed_gate=True)
    out = run("release", "list")[1]
    assert "challenger" in out
    assert "Recall 0.91, within the floor." in out
    code, _, _ = run("release", "promote", first.name, "--no-wait", "--who", "ada")
    assert code == 0
    said = loop.cluster.values(RELEASES)[-1]
    assert (said["promoted"], said["decision"]) == (
        True, "Recall 0.91, within the floor. Promoted by ada: promoted by hand.",
    )  # fmt: skip
    assert run("release", "promote", first.name, "--no-wait")[0] == 0
    assert len(loop.cluster.values(RELEASES)) == 2
    assert len(loop.controls()) == 2


def test_what_the_gate_did_not_let_pass_is_promoted_only_by_overriding_it(loop: Loop, run: Run) -> None:
    (first, _), (refused, path), (unknown, _) = loop.make(1), loop.make(2), loop.make(3)
    loop.serve(first)
    announce(loop.settings, refused, path, decision="Recall fell to 0.31.", promoted=False)
    code, _, errors = run("release", "promote", refused.name, "--why", "it looks good")
    assert code == 4
    assert "of it was said: Recall fell to 0.31." in errors
    assert "--override-gate and --why" in errors
    for name in (refused.name, unknown.name):
        assert run("release", "promote", name)[0] == 4
        assert run("release", "promote", name, "--override-gate")[0] == 4
        # Nobody has served it.
        assert run("release", "rollback", name)[0] == 4
    assert loop.controls() == []
    assert run("release", "promote", refused.name, *OVERRIDE, "--no-wait", "--who", "ada")[0] == 0
    said = loop.cluster.values(RELEASES)[-1]
    assert (said["promoted"], said["passed_gate"]) == (True, False)
    assert said["decision"] == "Recall fell to 0.31. Promoted past the gate by ada: tried in shadow."
    assert run("release", "rollback", first.name, "--no-wait")[0] == 0


def test_one_that_passed_the_gate_may_be_promoted_after_another_was_announced(loop: Loop, run: Run) -> None:
    (first, _), (second, path), (third, other) = loop.make(1), loop.make(2), loop.make(3)
    loop.serve(first)
    announce(loop.settings, second, path, decision="Within the floor.", promoted=True, passed_gate=True)
    announce(loop.settings, third, other, decision="Recall fell to 0.31.", promoted=False)
    assert run("release", "promote", second.name, "--no-wait")[0] == 0
    assert loop.cluster.values(RELEASES)[-1]["passed_gate"] is True


def test_a_refused_promotion_ends_with_4_and_the_reason(loop: Loop, run: Run) -> None:
    (first, _), (second, _) = loop.make(1), loop.make(2)
    loop.serve(first)
    with Scorer(loop, refused="texts.safetensors was changed"):
        code, _, errors = run("release", "promote", second.name, *OVERRIDE)
    assert code == 4
    assert f"release {second.name} is refused, and the one before goes on, in " in errors
    assert "v1[0-1]: texts.safetensors was changed." in errors


def test_without_a_scorer_the_promotion_ends_with_4_and_names_the_partitions(loop: Loop, run: Run) -> None:
    (first, _), (second, _) = loop.make(1), loop.make(2)
    loop.serve(first)
    code, _, errors = run("release", "promote", second.name, *OVERRIDE, "--timeout", "1")
    assert code == 4
    assert "2 of 2 partitions (0-1) have not taken it up after 1 s" in errors
    # It may be taken back before anybody has followed it.
    code, out, _ = run("release", "rollback", "--no-wait")
    assert (code, out.split()[2]) == (0, f"{first.name},")


def test_another_embedders_release_is_refused_with_the_way_to_go(loop: Loop, run: Run) -> None:
    (first, _), (second, _) = loop.make(1), loop.make(2, space_id="words-64")
    loop.serve(first)
    code, _, errors = run("release", "promote", second.name, *OVERRIDE)
    assert code == 5
    assert "space_id 'words-32' against 'words-64'. Start a second scorer with its own --group-id and" in errors
    assert loop.controls() == []
    assert loop.cluster.values(RELEASES) == []


def test_an_unsigned_or_tampered_release_is_neither_announced_nor_promoted(loop: Loop, run: Run) -> None:
    unsigned = loop.directory / "unsigned"
    make(unsigned, loop.settings)
    code, _, errors = run("release", "promote", str(unsigned))
    assert code == 5
    assert "it is unsigned" in errors
    manifest, path = loop.make(1)
    (path / "bank.safetensors").write_bytes(b"x")
    code, _, errors = run("release", "promote", manifest.name)
    assert code == 5
    assert "bank.safetensors must be a file of" in errors
    assert loop.controls() == []
    assert loop.cluster.values(RELEASES) == []


def test_a_rollback_does_not_go_to_what_was_changed_since(loop: Loop, run: Run) -> None:
    (first, path), (second, _) = loop.make(1), loop.make(2)
    loop.serve(second)
    with Scorer(loop):
        for name in (first.name, second.name):
            assert run("release", "promote", name, *OVERRIDE)[0] == 0
    # Signed anew by a trusted key, but not what was served.
    body = (path / MANIFEST).read_bytes()
    (path / MANIFEST).write_bytes(body + b"\n")
    code, _, errors = run("release", "rollback")
    assert code == 5
    assert "as when it was served; it has" in errors
    assert run("release", "rollback", first.name, "--no-wait")[0] == 5
    assert run("release", "promote", first.name, *OVERRIDE, "--no-wait")[0] == 0


def test_nothing_to_go_back_to_is_said(loop: Loop, run: Run) -> None:
    first, _ = loop.make(1)
    loop.serve(first)
    code, _, errors = run("release", "rollback")
    assert code == 2
    assert f"there is no release to go back to: {first.name} is the first that was served. Promote the one" in errors


# -- lineage -----------------------------------------------------------------------------------------------------------


def finding(release: str, revision: int = 1) -> dict[str, Any]:
    record: dict[str, Any] = orjson.loads((EXAMPLES / "findings.v1" / "session-create.json").read_bytes())
    record["finding_info"]["uid"] = UID
    record["metadata"]["sequence"] = revision
    record["unmapped"]["release"] = release
    return record


def label(analyst: str, **changed: Any) -> dict[str, Any]:
    record: dict[str, Any] = orjson.loads(next((EXAMPLES / "labels.v1").glob("*.json")).read_bytes())
    return {**record, "finding_uid": UID, "analyst": analyst, "identity": "unverified", **changed}


def verdict(analyst: str, verdict_id: int, time_ms: int) -> dict[str, Any]:
    return {
        "finding_uid": UID, "verdict_id": verdict_id, "analyst": analyst, "time": time_ms, "notes": ["quoted mail"],
    }  # fmt: skip


def labels_used(*uids: str) -> LabelsUsed:
    ranges = [InputRange(topic="genai.feedback.labels.v1", partition=0, from_offset=0, to_offset=3)]
    return LabelsUsed(
        ranges=ranges, labels_sha256="c" * 64, attacks=1, benign=0, left_out=0, findings=list(uids),
        analysts=["ada@soc"],
    )  # fmt: skip


def test_lineage_leads_from_a_finding_through_all_parents_to_the_first(loop: Loop, run: Run) -> None:
    first, _ = loop.make(1)
    second, gone = loop.make(2, parent=first.name, days=1, labels=labels_used("ee" * 16))
    third, _ = loop.make(3, parent=second.name, days=2)
    later, later_path = loop.make(4, parent=third.name, days=3, labels=labels_used("dd" * 16, UID))
    announce(loop.settings, second, gone, decision="Recall 0.91, within the floor.", promoted=True)
    announce(loop.settings, later, later_path, decision="", promoted=True)
    announce(loop.settings, second, gone, decision="Recall 0.91, within the floor.", promoted=True)
    shutil.rmtree(gone)
    place = partition_of_key(UID.encode(), PARTITIONS)
    loop.write(FINDINGS, place, UID.encode(), finding(third.name))
    loop.write(FINDINGS, place, UID.encode(), finding(later.name, 2))
    loop.write(FINDINGS, place, b"ff" * 16, finding("r-other"))
    for given in (verdict("ada@soc", 1, 1_795_000_000_000), verdict("ada@soc", 2, 1_795_000_100_000)):
        loop.write(VERDICTS, place, UID.encode(), given)
    loop.write(VERDICTS, place, UID.encode(), {"finding_uid": UID, "verdict_id": 77})
    loop.write(LABELS, place, orjson.dumps([UID, "ada@soc"]), label("ada@soc", teaches="attack", verdict_id=2))
    code, out, errors = run("release", "lineage", UID)
    assert (code, errors) == (0, "")
    for line in (
        f"finding {UID}: ",
        "verdicts: 2 verdicts of 1 analyst",
        'ada@soc, 2026-11-18T11:06:40Z: False Positive, of the session; "quoted mail" (replaced by a later one)',
        "ada@soc, 2026-11-18T11:08:20Z: True Positive, of the session",
        "ada@soc (unverified): True Positive teaches attack",
        f"learned from it: {later.name}",
        f"found by release {third.name}",
        f"then updated by release {later.name}",
        f"parent {second.name}",
        "as announced, manifest_sha256: ",
        "gate: Recall 0.91, within the floor.",
        f"parent {first.name}",
        "file captured.jsonl.gz: 12 bytes",
        "parent none: it is the first of its line",
        f"parent {third.name}, which was told of above",
    ):
        assert line in out
    plain = orjson.loads(run("release", "lineage", UID, "--json")[1])
    assert [[link["release"] for link in links] for links in plain["chains"]] == [
        [third.name, second.name, first.name],
        [later.name, third.name, second.name, first.name],
    ]
    assert plain["learned_by"] == [later.name]
    assert plain["chains"][0][0]["manifest"]["data"]["files"][0]["sha256"] == "a" * 64
    assert (plain["chains"][0][1]["path"], plain["chains"][0][1]["manifest"]) == (None, None)
    assert plain["chains"][0][1]["told"]["manifest_sha256"]
    code, out, _ = run("release", "lineage", later.name)
    assert (code, out.splitlines()[0]) == (0, f"release {later.name}")
    assert f"{'dd' * 16}" in out
    code, out, _ = run("release", "lineage", second.name)
    assert "its manifest cannot be read: release" in out
    assert f"parent {first.name}" in out


def test_a_finding_whose_records_are_gone_is_told_of_by_its_labels(loop: Loop, run: Run) -> None:
    first, _ = loop.make(1)
    place = partition_of_key(UID.encode(), PARTITIONS)
    loop.write(LABELS, place, orjson.dumps([UID, "ada@soc"]), label("ada@soc", release=first.name))
    code, out, _ = run("release", "lineage", UID)
    assert code == 0
    assert "its own records are gone" in out
    assert f"found by release {first.name}" in out


def test_an_unknown_finding_is_said_to_be_nowhere(loop: Loop, run: Run) -> None:
    code, _, errors = run("release", "lineage", "00" * 16)
    assert code == 2
    assert f"finding {'00' * 16} is neither on {loop.settings.topics.findings} nor behind any label" in errors


# -- exceptions --------------------------------------------------------------------------------------------------------


def test_a_rule_is_begun_listed_and_removed(loop: Loop, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    begin = ["--action", "suppression", "--tenant", "team-42", "--days", "2", "--who", "ada@soc", "--why", "load test"]
    code, out, errors = run("exceptions", "add", *begin)
    assert (code, errors) == (0, "")
    name = out.partition(":")[0]
    (control,) = loop.controls()
    assert (control["kind"], control["issuer"], control["tenant"]) == ("exception", "ada@soc", "team-42")
    assert control["value"]["rule"]["rule_id"] == name
    (message,) = loop.cluster.read(CONTROLS)
    assert (message.key(), message.headers()) == (b"team-42", [("tg-schema", b"controls.v1")])

    out = run("exceptions", "list")[1]
    assert name in out
    assert "load test" in out
    monkeypatch.setenv("TIDEGATE_DECISION__EXCEPTIONS", '{"team-7": "a drill"}')
    plain = orjson.loads(run("exceptions", "list", "--json")[1])
    assert [(each["rule_id"], each["state"], each["who"]) for each in plain["rules"]] == [(name, "in force", "ada@soc")]
    assert plain["decision.exceptions"] == {"team-7": "a drill"}

    code, out, _ = run("exceptions", "remove", name, "--who", "bob@soc")
    assert (code, loop.controls()[1]["value"]["remove"]) == (0, name)
    assert name not in run("exceptions", "list")[1]
    assert "removed" in run("exceptions", "list", "--all")[1]
    code, _, errors = run("exceptions", "remove", name, "--who", "bob@soc")
    assert code == 2
    assert "is not in force any more: it was removed" in errors
    code, _, errors = run("exceptions", "remove", "x-none", "--who", "bob@soc")
    assert code == 2
    assert "rule 'x-none' is not on" in errors
