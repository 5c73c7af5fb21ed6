import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from palign_bench.ledger.plan import Plan
from palign_bench.questionnaire.inventory import Inventory
from palign_bench.report.document import Written
from palign_bench.report.pictures.efficiency import score_figure
from palign_bench.report.pictures.table import compose_figure
from palign_bench.report.table import Report, build_report

CONSTANTS = tuple(f"constant_{letter}" for letter in "abcde")
FLOORS = (*CONSTANTS, "random", "domain_mean", "facet_mean", "item_median", "ridge", "ceiling", "truth")
METHODS = ("vanilla", "few_shot", "personality_prompt", "pas", "pas_no_prompt", "dpo", "ppo", "rloo", "lora", "qlora")
MORE = (
    "full_finetuning",
    "prompt_tuning",
    "readout_people",
    "few_shot_readout",
    "a_method_with_a_very_long_name_of_its_own_indeed",
)

MakeReport = Callable[..., Report]


@pytest.fixture
def make_scored(
    make_record: Callable[..., dict[str, Any]], make_plan: Callable[..., Plan], five_items: Inventory
) -> MakeReport:
    """A report with given mean composites per row over ``people`` people."""

    def make(composites: dict[str, float], people: int, **about: Any) -> Report:
        generator, ids = random.Random(0), tuple(f"p{i}" for i in range(people))
        rows = {
            key: {i: make_record({6: 3}, {6: 3}, max(0.0, score + generator.gauss(0, 0.5))) for i in ids}
            for key, score in composites.items()
        }
        return build_report(make_plan(rows, ids, **about), five_items)

    return make


def texts_of(figure: Figure) -> dict[str, Any]:
    FigureCanvasAgg(figure).draw()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    low, high = figure.axes[0].get_xlim()
    ticks = figure.axes[0].xaxis.get_majorticklabels()
    unseen = {text for text in ticks if not low <= text.get_position()[0] <= high}  # placed, but never drawn
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
    shown = [text for text in found if text not in unseen]
    return {f"{i} {text.get_text()}": text.get_window_extent(renderer) for i, text in enumerate(shown)}


def assert_legible(figure: Figure) -> None:
    """No text overlaps another or leaves the page."""
    extents = texts_of(figure)
    for (first, a), (second, b) in itertools.combinations(extents.items(), 2):
        apart = a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0
        assert apart, f"{first!r} overlaps {second!r}"
    for name, extent in extents.items():
        inside = extent.x0 >= 0 and extent.y0 >= 0 and extent.x1 <= figure.bbox.x1 and extent.y1 <= figure.bbox.y1
        assert inside, f"{name!r} leaves the page"


@pytest.mark.parametrize("people", [1, 3, 40])
@pytest.mark.parametrize("best", [1.5, 3.8, 6.0])
def test_27_rows_are_legible(make_scored: MakeReport, people: int, best: float) -> None:
    generator = random.Random(people)
    composites = {key: generator.uniform(best, 11) for key in (*METHODS, *MORE, *FLOORS)}
    report = make_scored(composites, people, model_title="A model with a long name " * 5)
    assert len(report.rows) == 27
    assert_legible(compose_figure(report))


@pytest.mark.parametrize(
    "composites",
    [
        {"pas": 3.0, "constant_c": 3.5, "ridge": 2.0},
        {"pas": 9.0, "constant_c": 4.5, "domain_mean": 4.4, "ridge": 8.8},
        {"constant_c": 9.5, "ridge": 9.4},
        {"truth": 0.0},
    ],
)
def test_few_rows_are_legible(make_scored: MakeReport, composites: dict[str, float]) -> None:
    assert_legible(compose_figure(make_scored(composites, 3)))


def test_rows_are_sorted_and_floors_are_named(make_scored: MakeReport) -> None:
    figure = compose_figure(make_scored({"pas": 2.0, "constant_c": 6.0, "domain_mean": 4.0, "ridge": 8.0}, 12))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["Ridge on others", "Always C", "Own domain mean", "PAS"]  # from the bottom: the best on top
    shown = " ".join(texts_of(figure))
    for expected in (
        "best constant option: Always C, ",
        "best own-answers floor: Own domain mean, ",
        "best other-people floor: Ridge on others, ",
        "protocol corrected, 12 people in this table (source: 300 people of PAPI)",
    ):
        assert expected in shown


def test_a_floor_that_is_best_in_two_kinds_is_one_line(make_scored: MakeReport) -> None:
    shown = " ".join(texts_of(compose_figure(make_scored({"pas": 2.0, "constant_c": 6.0, "random": 8.0}, 3))))
    assert "best constant option and own-answers floor: Always C" in shown
    assert "other-people floor: " not in shown


def test_files_are_pictures(make_scored: MakeReport, tmp_path: Path) -> None:
    figure = compose_figure(make_scored({"pas": 3.0, "constant_c": 3.5, "ridge": 2.0}, 12))
    paths = Written().draw(figure, tmp_path / "new" / "table1")
    assert [path.name for path in paths] == ["table1.png", "table1.pdf"]
    pixels = matplotlib.image.imread(paths[0])
    assert pixels.shape[0] > 300 and pixels.shape[1] == 1350
    assert 0.005 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.5  # neither blank nor black
    assert paths[1].read_bytes().startswith(b"%PDF-")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["table1.pdf", "table1.png"]


def test_unfinished_rows_are_left_out_and_said(
    make_record: Callable[..., dict[str, Any]], make_plan: Callable[..., Plan], five_items: Inventory
) -> None:
    plan = make_plan({"pas": {"p0": make_record({6: 3}, {6: 3}, 4.0)}, "ridge": {}, "dpo": {}}, ("p0",))
    figure = compose_figure(build_report(plan, five_items))
    shown = " ".join(texts_of(figure))
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["PAS"]
    assert "2 rows without a finished person left out" in shown


def test_rows_of_fewer_people_say_so(
    make_record: Callable[..., dict[str, Any]], make_plan: Callable[..., Plan], five_items: Inventory
) -> None:
    """They are not to be ranked against rows of everybody."""
    ids = tuple(f"p{i}" for i in range(120))
    people = {"pas": ids, "dpo": ids[:2], "constant_e": ids[:119]}
    rows = {key: {i: make_record({6: 3}, {6: 3}, 10.5) for i in some} for key, some in people.items()}
    figure = compose_figure(build_report(make_plan(rows, ids), five_items))
    shown = [text.split(" ", 1)[1] for text in texts_of(figure)]
    assert {"10.50", "10.50 (2)", "10.50 (119)"} <= set(shown)
    assert any("In brackets" in text for text in shown)
    assert_legible(figure)


def test_pictures_have_the_mode_that_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        paths = Written().draw(Figure(), tmp_path / "picture")
    finally:
        os.umask(before)
    assert {path.suffix for path in paths} == {".png", ".pdf"}
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in paths)


def test_every_label_of_scores_against_seconds_stays_within_the_page() -> None:
    """The longest stands furthest to the right."""
    named = {"Few-Shot": 0.2, "PAS": 1.0, "LoRA (measured)": 9.0, "PPO (measured)": 400.0}
    rows = [
        {"label": label, "align_seconds": seconds, "answer_seconds": 0.1, "composite": 2.0 + place, "steps": 2,
         "extrapolated": label.endswith("(measured)")}
        for place, (label, seconds) in enumerate(named.items())
    ]  # fmt: skip
    figure = score_figure(rows, "title")
    page = figure.bbox
    for text, box in texts_of(figure).items():
        if any(name in text for name in named):
            assert page.x0 <= box.x0 and box.x1 <= page.x1, text
