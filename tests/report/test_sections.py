"""What single sections say, and that they say nothing that the run does not bear out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.report.contents import FoldModel, Map, RunContents, read_contents
from coverslip.report.facts import encoder, failed, slide_results
from coverslip.report.headline import headline, judgement, verdict
from coverslip.report.sections import SECTIONS, Absent, all_sections
from coverslip.report.sections.cohort import flow
from coverslip.report.sections.heatmaps import groups
from coverslip.report.sections.limits import limits
from coverslip.report.sections.methods import sentences, told
from coverslip.report.sections.warnings import cautions

NOTHING = RunContents("r", Path("nowhere"))


@pytest.fixture(scope="module")
def run(run_folder: Path) -> RunContents:
    return read_contents(run_folder)


@pytest.mark.parametrize("name", SECTIONS.names())
def test_every_section_keeps_the_contract(name: str, run: RunContents) -> None:
    section = SECTIONS.load(name)
    assert section.name == name and section.template.is_file() and section.title
    assert isinstance(section.build(run), dict)
    empty = section.build(NOTHING)
    assert isinstance(empty, dict) or empty.reason.endswith(".")


def test_no_two_sections_share_a_place() -> None:
    places = [section.place for section in all_sections()]
    assert len(set(places)) == len(places)


def with_figures(
    run: RunContents, primary: dict[str, Any] | None, difference: dict[str, Any] | None = None
) -> RunContents:
    metrics = {**(run.metrics or {}), "primary": {"auroc": primary}, "versus_baseline": {"auroc": difference}}
    return replace(run, metrics=metrics)


def test_the_judgement_says_no_more_than_the_interval_allows(run: RunContents) -> None:
    good = {"value": 0.9, "low": 0.8, "high": 0.97}
    assert "not shown" in judgement(with_figures(run, {"value": 0.7, "low": 0.45, "high": 0.9}))
    assert judgement(with_figures(run, good)) == "Better than guessing."
    better = judgement(with_figures(run, good, {"value": 0.1, "low": 0.02, "high": 0.2}))
    assert "Better than the baseline too" in better
    unsure = judgement(with_figures(run, good, {"value": 0.1, "low": -0.02, "high": 0.2}))
    assert "is not shown" in unsure
    assert "No better than the baseline" in judgement(with_figures(run, good, {"value": 0.0, "low": -0.1, "high": 0.1}))
    assert judgement(with_figures(run, {"value": 0.9, "low": None, "high": None})) == ""
    # Folds that all agree give an interval without width, which says nothing.
    assert judgement(with_figures(run, {"value": 1.0, "low": 1.0, "high": 1.0})) == ""


def test_a_null_figure_is_told_and_not_drawn(run: RunContents) -> None:
    none = with_figures(run, {"value": None, "low": None, "high": None})
    assert "could be computed" in verdict(none)
    assert headline(none).figure is None
    assert "not been evaluated" in verdict(NOTHING)


def test_warnings_come_gravest_first(run: RunContents) -> None:
    order = ["leak", "fail", "warn", "note"]
    told = {**(run.metrics or {}), "warnings": ["LEAK. Patient 3 is in train and test.", "One fold only."]}
    gravities = [caution.gravity for caution in cautions(replace(run, metrics=told))]
    assert gravities == sorted(gravities, key=order.index)
    assert gravities[0] == "leak" and "note" in gravities


def test_damaged_tiles_that_were_left_out_stand_on_the_page_with_their_slides(run: RunContents) -> None:
    shards = ({"skipped": {"by_slide": {"case-05": 3}}}, {"skipped": {"by_slide": {"case-09": 1}}})
    (told,) = [c for c in cautions(replace(run, embedding=shards)) if "damaged" in c.headline]
    assert told.gravity == "warn" and told.headline == "4 damaged tiles of 2 slides left out"
    assert 'tiles.on_bad = "skip"' in told.text and told.names == ("case-05", "case-09")
    assert not [c for c in cautions(replace(run, embedding=())) if "damaged" in c.headline]


def test_a_slide_that_failed_is_told_once(run: RunContents) -> None:
    broken = [caution for caution in cautions(run) if "biopsy-0099-broken" in caution.names]
    assert len(broken) == 1 and broken[0].gravity == "fail"


@pytest.mark.parametrize(
    ("licence", "noted"),
    [
        ("CC-BY-NC-ND-4.0", True),
        ("non-commercial research only", True),
        ("Apache-2.0", False),
        ("", False),
        ("INCA-1", False),
    ],
)
def test_a_restricted_licence_is_noted(licence: str, noted: bool, run: RunContents) -> None:
    card = {"encoder": "uni", "dim": 1024, "licence": licence, "attributes": {}}
    found = cautions(replace(run, models=(), environment={"encoder": card}))
    assert any("restricted" in caution.headline for caution in found) == noted


def test_features_of_an_unnamed_encoder_are_warned_of(run: RunContents) -> None:
    card = {"encoder": "", "dim": 1024, "licence": "", "attributes": {}}
    found = cautions(replace(run, models=(), environment={"encoder": card}))
    assert any("do not name their encoder" in caution.headline for caution in found)


def test_the_default_encoder_is_not_claimed_for_foreign_features(run: RunContents) -> None:
    assert encoder(run)["name"] == "texture"
    assert encoder(replace(run, models=(), check=None)) == {}


def test_the_flow_accounts_for_every_row(run: RunContents) -> None:
    stops = flow(run)
    assert [stop.amount for stop in stops] == ["28 slides", "26 slides", "25 slides of 20 patients"]
    assert stops[0].left == (("no value of lesion", 2),)
    assert stops[1].left == (("file is cut short", 1),)


def test_the_flow_counts_unlabelled_slides_that_were_opened_after_the_preflight(run: RunContents) -> None:
    assert run.check is not None
    opened = {"slides": [*run.check["slides"], {"slide": "biopsy-7001-a", "verdict": "ok"}]}
    stops = flow(replace(run, check=opened))
    assert [stop.amount for stop in stops] == ["28 slides", "27 slides", "26 slides", "25 slides of 20 patients"]
    assert stops[2].left == (("no value of lesion", 1),)


def test_a_later_success_takes_a_failure_back(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    with (folder / "outcomes.csv").open("a") as file:
        file.write("biopsy-0099-broken,check,done,,1.0\n")
    assert failed(read_contents(folder)) == {}


def test_slide_results_average_folds_and_ties_go_to_the_first_class() -> None:
    frame = pd.DataFrame(
        {
            "slide": ["a", "a", "b"],
            "patient": ["p", "p", "q"],
            "fold": [0, 1, 0],
            "set": "test",
            "y": ["1", "1", "0"],
            "p_0": [0.2, 0.6, 0.5],
            "p_1": [0.8, 0.4, 0.5],
        }
    )
    metrics = {"task": {"column": "y", "classes": ["0", "1"]}}
    results = slide_results(replace(NOTHING, predictions=frame, metrics=metrics))
    assert results["a"].probabilities["1"] == pytest.approx(0.6) and results["a"].right and results["a"].fold == "0, 1"
    assert results["b"].decided == "0" and results["b"].confidence == 0.5


def test_maps_of_wrong_cases_come_first_and_the_surest_first_in_each_group(run: RunContents) -> None:
    found, hidden = groups(run)
    assert hidden == 0 and sum(len(group.cards) for group in found) == 25
    wrong = [group.wrong for group in found]
    assert wrong == sorted(wrong, reverse=True) and True in wrong and False in wrong
    for group in found:
        confidence = [card.result.confidence for card in group.cards if card.result]
        assert confidence == sorted(confidence, reverse=True)
        assert all(card.result is not None and card.result.right != group.wrong for card in group.cards)


def test_a_map_of_a_slide_with_a_known_region_says_how_well_it_finds_it(run: RunContents) -> None:
    cards = [card for group in groups(run)[0] for card in group.cards]
    assert all(
        (card.region_auroc is not None) == (card.result is not None and card.result.true == "1") for card in cards
    )


def test_a_map_without_a_prediction_is_shown_apart(run: RunContents) -> None:
    found, _ = groups(replace(run, maps=(*run.maps, Map("stranger", None))))
    assert found[-1].title.startswith("Not tested") and found[-1].cards[0].slide == "stranger"


def test_the_methods_name_what_was_done_and_nothing_else(run: RunContents) -> None:
    text = " ".join(sentences(run))
    for part in (
        "25 whole-slide images of 20 patients",
        "224 × 224 px at 0.5 µm/px",
        "“texture”",
        "Apache-2.0",
        "seed 0",
    ):
        assert part in text
    foreign = " ".join(sentences(replace(run, check=None)))
    assert "segmented" not in foreign and "Features had been made from tiles of 224 px" in foreign
    assert sentences(NOTHING) == []


def test_limits_speak_of_other_hospitals_unless_there_are_external_patients(run: RunContents) -> None:
    assert "Other patients, other scanners" in dict(limits(run))
    external = {**(run.metrics or {}), "external": {"auroc": {"value": 0.8}}}
    assert "Other patients, other scanners" not in dict(limits(replace(run, metrics=external)))
    assert "Pseudonyms" in dict(limits(replace(run, pseudonymised=True)))


def test_one_site_alone_says_that_others_are_unknown(run: RunContents) -> None:
    one = {**(run.evaluation or {}), "sites": [{"site": "north", "patients": 20}]}
    found = SECTIONS.load("sites").build(replace(run, evaluation=one))
    assert isinstance(found, Absent) and "north" in found.reason


LEAK = {"kind": "patient", "name": "p1", "sets": ["train", "test"], "fold": 2, "repeat": 0}


def test_a_leak_is_told_once_and_only_a_leak_into_the_test_is_called_one(run: RunContents) -> None:
    metrics = {
        **(run.metrics or {}),
        "warnings": ["LEAK. Patients on both sides of a fold: 1. p1 (fold 2: train and test)."],
    }
    told = cautions(replace(run, metrics=metrics, split={**(run.split or {}), "leaks": [LEAK]}))
    assert [c.headline for c in told if c.gravity == "leak"] == ["1 patient on both sides of a fold"]
    assert "1 of them were tested by models" in told[0].text
    into_tuning = {**LEAK, "sets": ["train", "tune"]}
    told = cautions(replace(run, split={**(run.split or {}), "leaks": [into_tuning]}))
    assert "not in the tests" in told[0].text


def test_with_a_leak_no_section_says_that_models_never_saw_the_test(run: RunContents) -> None:
    section = SECTIONS.load("results")
    assert section.build(run)["leaking"] is False
    assert section.build(replace(run, split={**(run.split or {}), "leaks": [LEAK]}))["leaking"] is True


def test_at_slide_level_classes_are_counted_under_slides_and_foreign_folds_are_called_so(run: RunContents) -> None:
    facts = {fact.name: fact.note for fact in headline(run).facts}
    assert "of class" in facts["patients"] and facts["folds"] == "by patient"
    settings = {**(run.settings or {}), "split": {"file": "splits"}}
    there = replace(run, metrics={**(run.metrics or {}), "level": "slide"}, settings=settings)
    facts = {fact.name: fact.note for fact in headline(there).facts}
    assert facts["patients"] == "" and "of class" in facts["slides"] and facts["folds"] == "made elsewhere"


def test_slides_that_no_fold_tests_are_counted(run: RunContents) -> None:
    counts = (run.metrics or {})["counts"]
    listed = [f"s{i}" for i in range(counts["slides"] + 3)]
    stops = flow(replace(run, cohort={"slides": listed}))
    assert ("in no test set", 3) in [cause for stop in stops for cause in stop.left]


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ({"folds": 5, "seed": 3}, "5-fold cross-validation, stratified by outcome and grouped by patient (seed 3)"),
        (
            {"design": "leave_site_out", "least_site": 12},
            "Each site was tested by a model that had seen no patient of it",
        ),
        ({"design": "site_preserved", "folds": 4}, "sites kept whole"),
        (
            {"design": "temporal", "time": "biopsied"},
            "trained on earlier patients and tested on later ones by “biopsied”",
        ),
        ({"file": "folds.csv"}, "made elsewhere"),
    ],
)
def test_the_methods_say_how_folds_were_made(run: RunContents, split: dict[str, Any], said: str) -> None:
    text = " ".join(sentences(replace(run, settings={**(run.settings or {}), "split": split})))
    assert said in text
    assert ("stratified" in text) == (split.get("design") is None and "file" not in split)


def test_the_methods_name_training_also_where_no_rate_is_set(run: RunContents) -> None:
    assert run.setting("fit", "lr") is None
    found = told(run)
    assert "standardised" in found["scaling"] and "AdamW" in found["training"] and "best epoch" in found["stopping"]
    assert (
        "chosen in each fold"
        in told(
            replace(run, settings={**(run.settings or {}), "tune": {"grid": {"fit.lr": [1e-3, 1e-4]}, "folds": 3}})
        )["training"]
    )
    assert (
        "ended after 20 epochs" in told(replace(run, models=tuple(_without_tuning(m) for m in run.models)))["stopping"]
    )


def _without_tuning(model: FoldModel) -> FoldModel:
    training = {**model.facts["training"], "best_loss": None, "settings": {"epochs": 20}}
    return replace(model, facts={**model.facts, "training": training})


def test_an_unfinished_survival_run_names_its_event_and_its_covariates() -> None:
    settings = {"task": {"kind": "survival", "time": "days", "event": "died"}, "cohort": {"covariates": ["age"]}}
    run = replace(NOTHING, settings=settings)
    assert headline(run).question.startswith("Can “died” be told")
    found = SECTIONS.load("covariates").build(run)
    assert isinstance(found, Absent) and "names age" in found.reason


def test_folds_and_sites_of_times_count_events() -> None:
    """Who is tested in no fold is said to be not known, and not counted as free of the event."""
    frame = pd.DataFrame(
        {"slide": list("abc"), "patient": list("abc"), "days": [1.0, 2.0, 3.0], "died": ["1", "0", "1"]}
    )
    frame = frame.assign(fold=0, repeat=0, set="test", risk=0.0)
    split = {"unit": "patient", "folds": [{"fold": 0, "train": ["a", "x"], "tune": ["y"], "test": ["a", "b", "c"]}]}
    task = {"kind": "survival", "column": "died", "columns": ["days", "died"], "classes": []}
    figure = {"value": 0.7, "low": 0.6, "high": 0.8, "interval": "95%"}
    sites = [
        {
            "site": name,
            "patients": 9,
            "events": {"event": 5, "censored": 4},
            "c_index": figure,
            "ibs": figure,
            "reason": None,
        }
        for name in "uv"
    ]
    metrics = {"task": task, "headline": "c_index", "shown": ["c_index", "ibs"], "level": "patient"}
    run = replace(NOTHING, predictions=frame, split=split, evaluation={"sites": sites}, metrics=metrics)
    shown = SECTIONS.load("splits").build(run)
    assert isinstance(shown, dict) and shown["classes"] == ["event", "censored"]
    assert [cell["classes"] for cell in shown["rows"][0]["cells"]] == [[1, 0, "1 not known"], [], [2, 1]]
    table = SECTIONS.load("sites").build(run)
    assert isinstance(table, dict) and table["names"] == ["c_index", "ibs"] and table["parts"] == ["event", "censored"]


def test_groups_of_errors_show_tiles_and_fold_away_what_is_no_finding(run: RunContents) -> None:
    tile = next(one for one in run.maps if one.tiles).tiles[0]
    rows = [{"slice": f"g{i}", "kind": "cluster", "units": 6, "error": 0.5, "excess": 0.1, "shrunk": 0.0, "p": 0.4,
             "finding": False, "slides": ["only here"]} for i in range(5)]  # fmt: skip
    section = SECTIONS.load("slices")
    there = replace(run, audit={"slices": {"looked_at": 9, "slices": rows}}, slices={"only here": (tile, tile)})
    shown = section.build(there)
    assert isinstance(shown, dict) and not shown["findings"] and not shown["is_shrunk"]
    assert [len(row["pictures"]) for row in shown["others"]] == [2, 2, 2, 0, 0]
