"""What is finished is kept, and not taken for another run's."""

from __future__ import annotations

from pathlib import Path

from evaluation.parts import Parts, fingerprint
from evaluation.report.facts import Absent, Cost, Facts


def cost(system: str) -> Cost:
    return Cost(protocol="session", seed=0, system=system, events=1, seconds=1.0)


def test_parts_come_back_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    parts, resumed = Parts.open(tmp_path / "parts", "a")
    assert not resumed
    parts.put("one", (), Facts(costs=[cost("one")]))
    absent = Absent(protocol="paired", seed=0, reason="Nothing is there.")
    parts.put("two", (), Facts(costs=[cost("two")], absent=[absent]))
    again, resumed = Parts.open(tmp_path / "parts", "a")
    assert resumed
    assert [again.has(name) for name in ("one", "two", "three")] == [True, True, False]
    made = again.facts(["two", "one"], Facts(nominal=0.05))
    assert [each.system for each in made.costs] == ["two", "one"]
    assert made.nominal == 0.05
    assert made.absent[0].reason == "Nothing is there."


def test_parts_of_another_run_are_removed(tmp_path: Path) -> None:
    Parts.open(tmp_path / "parts", "a")[0].put("one", (), Facts())
    parts, resumed = Parts.open(tmp_path / "parts", "b")
    assert not resumed
    assert not parts.has("one")


def test_a_fingerprint_changes_with_input_settings_code_and_weights(tmp_path: Path) -> None:
    code, data = tmp_path / "code", tmp_path / "data.jsonl"
    (code / "models").mkdir(parents=True)
    (code / "models" / "a.py").write_text("a = 1\n")
    data.write_text("{}\n")
    first = fingerprint([data], ["x"], code)
    assert fingerprint([data], ["x"], code) == first
    assert fingerprint([data], ["y"], code) != first
    (code / "models" / "a.py").write_text("a = 2\n")
    (code / "models" / "w.safetensors").write_bytes(b"1")
    second = fingerprint([data], ["x"], code)
    assert second != first
    (code / "models" / "w.safetensors").write_bytes(b"2")
    assert fingerprint([data], ["x"], code) != second
    data.write_text("[]\n")
    assert fingerprint([data], ["x"], code) not in (first, second)
