"""A report as files: valid, whole, safe to open, and the same every time."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import orjson
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from evaluation.report.__main__ import main
from evaluation.report.columns import Rows
from evaluation.report.compute import compute
from evaluation.report.facts import Facts, read_facts, write_facts
from evaluation.report.page import as_data
from evaluation.report.pictures import drawn, of_attacks, themed
from evaluation.report.schema import PATH
from evaluation.report.write import EXCERPTS, Excerpt, read_excerpts, write_report
from tests.evaluation.report.made import facts, row, rows

HOSTILE = "<script>alert(1)</script>\u202e"
FEW = {"tidegate": 3.0, "tidegate-novelty": 2.0, "length": 0.4}
SOME = ("paired", "hard_negatives")
PICTURES = ("worst", "families-paired", "curves-paired", "calibration", "slices-paired", "harmless-hard_negatives",
            "budget", "ablations-paired")  # fmt: skip


class Page(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    many = [
        msgspec.structs.replace(
            each, family=each.family and f"{HOSTILE}{each.family}", session=f"{HOSTILE}{each.session}"
        )
        for each in rows(tasks=12, heights=FEW, protocols=SOME)
    ]
    (folder / "sessions.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(many))
    write_facts(facts(2), folder)
    _keep([Excerpt(each.tenant, each.session, f"{HOSTILE} send it to Mallory") for each in many], folder)
    assert main([str(folder)]) == 0
    return folder


def _keep(excerpts: list[Excerpt], folder: Path) -> None:
    (folder / EXCERPTS).write_bytes(msgspec.json.Encoder().encode_lines(excerpts))


def test_the_report_is_what_the_schema_says(out: Path) -> None:
    validator = Draft202012Validator(orjson.loads(PATH.read_bytes()))
    assert [error.message for error in validator.iter_errors(orjson.loads((out / "report.json").read_bytes()))] == []


def test_an_empty_report_is_too(tmp_path: Path) -> None:
    made = write_report(Rows.of([]), Facts(), tmp_path, {})
    Draft202012Validator(orjson.loads(PATH.read_bytes())).validate(made)
    assert orjson.loads((tmp_path / "report.json").read_bytes()) == made
    assert "Nothing was judged" in (tmp_path / "report.html").read_text()


def test_a_figure_never_comes_without_its_sessions(out: Path) -> None:
    def figures(found: object) -> list[dict[str, object]]:
        if isinstance(found, dict):
            own = [found] if "value" in found and "by" in found else []
            return own + [each for value in found.values() for each in figures(value)]
        return [each for value in found for each in figures(value)] if isinstance(found, list) else []

    every = figures(orjson.loads((out / "report.json").read_bytes()))
    assert len(every) > 500
    assert all(set(each) == {"value", "low", "high", "n", "clusters", "by"} for each in every)


def test_the_page_loads_and_runs_nothing_and_escapes_what_it_shows(out: Path) -> None:
    text = (out / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "iframe" not in page.tags
    assert "default-src 'none'" in text
    assert all(source.startswith(("data:image/svg+xml;base64,", "#")) for source in page.sources)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text and "\u202e" not in text
    assert "send it to Mallory" in text


def test_the_page_says_the_worst_first_then_shows_it(out: Path) -> None:
    text = (out / "report.html").read_text()
    assert text.index("of the worst family") < text.index("<img") < text.index("<h2 id=")
    assert Page(text).tags.count("img") == len(list(out.glob("report-*.png")))
    assert "9 injections" not in text and "6 injections without a clean twin" in text
    assert "MiniLM is not installed." in text


@pytest.mark.parametrize("name", PICTURES)
def test_each_picture_lies_beside_the_page(out: Path, name: str) -> None:
    with Image.open(io.BytesIO((out / f"report-{name}.png").read_bytes())) as picture:
        assert picture.width > 1000 and picture.height > 250
        # Something is drawn: white paper and a few colours at least.
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 20) or []) > 50


def test_pictures_within_the_page_are_well_formed_and_follow_a_dark_page(out: Path) -> None:
    for source in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', (out / "report.html").read_text()):
        svg = base64.b64decode(source).decode()
        ET.fromstring(svg)
        assert "prefers-color-scheme:dark" in svg
        assert "#1f2933" not in svg.partition("</style>")[2]


def test_an_svg_keeps_its_colours_on_white() -> None:
    made = themed('<svg width="1"><path style="fill: #1f2933"/><path style="fill: #c01f3a"/></svg>')
    assert '<path style="fill: var(--c0)"/><path style="fill: #c01f3a"/>' in made
    assert ":root{--c0:#1f2933;" in made and "dark){:root{--c0:#e4e9ee;" in made


def test_the_same_rows_and_facts_give_the_same_bytes(out: Path) -> None:
    report = compute(Rows.read(out / "sessions.jsonl"), read_facts(out), read_excerpts(out))
    assert orjson.loads(msgspec.json.encode(report)) == orjson.loads((out / "report.json").read_bytes())
    for name, svg, png in drawn({name: of_attacks(report)[name] for name in ("worst", "curves-paired")}):
        assert png == (out / f"report-{name}.png").read_bytes()
        assert as_data(svg) in (out / "report.html").read_text()


def test_pictures_of_an_earlier_report_are_taken_away(tmp_path: Path) -> None:
    (tmp_path / "report-families-session.png").write_bytes(b"old")
    write_report(Rows.of([]), Facts(), tmp_path, {})
    assert list(tmp_path.glob("*.png")) == []


def test_excerpts_are_kept_for_the_next_report(tmp_path: Path) -> None:
    assert read_excerpts(tmp_path) == {}
    _keep([Excerpt("t", "s", "text\n")], tmp_path)
    assert read_excerpts(tmp_path) == {("t", "s"): "text\n"}
    with (tmp_path / EXCERPTS).open("ab") as torn:
        torn.write(
            b'{"tenant":"t","ses{"tenant":"t","session":"u","text":"more"}\n{"tenant":"t","session":"v","text":"x"}\n'
        )
    assert read_excerpts(tmp_path) == {("t", "s"): "text\n", ("t", "v"): "x"}


def test_a_folder_without_an_evaluation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main([str(tmp_path)]) == 2
    assert "must hold the sessions.jsonl of an evaluation" in capsys.readouterr().err
    (tmp_path / "sessions.jsonl").write_bytes(msgspec.json.encode(row()) + b"\n")
    (tmp_path / "facts.json").write_bytes(b"[]")
    assert main([str(tmp_path)]) == 2
    assert "must be the facts of an evaluation" in capsys.readouterr().err
