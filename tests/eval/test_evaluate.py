"""metrics.json as the interface has it, and warnings where a reader needs them."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from coverslip.base.errors import TableError
from coverslip.eval import METRICS, FoldSize, classification_metrics, evaluate, nadeau_bengio

TASK = {"kind": "classification", "column": "cancer", "classes": ["0", "1"]}


def run(predictions, baseline, split, **options):
    return evaluate(
        predictions, baseline, task=TASK, level=options.pop("level", "patient"), split=split, resamples=200, **options
    )


def says(warnings: list[str], *words: str) -> bool:
    return any(all(word in line for word in words) for line in warnings)


def test_metrics_hold_every_key_of_the_interface(make_predictions, sizes) -> None:
    found = run(make_predictions(), make_predictions(seed=1), sizes()).metrics
    assert found["format"] == "coverslip.metrics/1"
    assert found["task"] == TASK
    assert found["level"] == "patient"
    assert found["counts"] == {"patients": 60, "slides": 120, "classes": {"0": 30, "1": 30}}
    assert found["baseline"]["name"] == "mean+sd logistic"
    for name in METRICS:
        for part in ("primary", "baseline", "versus_baseline", "pooled"):
            said = {"value", "low", "high", "interval"} | ({"reason"} if name == "ece" else set())
            assert set(found[part][name]) == said
        assert set(found["fold_summary"][name]) == {"mean", "sd"}
        assert all(isinstance(fold[name], float) for fold in found["folds"])
    assert found["primary"]["auroc"]["interval"] == "mean of folds, Nadeau-Bengio, 95%"
    assert found["pooled"]["auroc"]["interval"] == "these fitted models, test patients resampled, 200, 95%"
    assert [(fold["fold"], fold["patients"]) for fold in found["folds"]] == [(k, 12) for k in range(5)]
    assert isinstance(found["warnings"], list)


def test_metrics_and_curves_are_json_without_nan(make_predictions, sizes) -> None:
    found = run(make_predictions(), None, sizes(), sites=pd.Series({"p0-0": "A"}))
    json.dumps(found.metrics, allow_nan=False)
    json.dumps(found.curves, allow_nan=False)


def test_primary_is_the_mean_of_within_fold_figures_of_patients(make_predictions, sizes) -> None:
    table = make_predictions()
    values = []
    for _, fold in table.groupby("fold"):
        patients = fold.groupby("patient").agg({"cancer": "first", "p_0": "mean", "p_1": "mean"})
        p = patients[["p_0", "p_1"]].to_numpy()
        values.append(classification_metrics(patients["cancer"].astype(int).to_numpy(), p, ("0", "1"))["auroc"])
    expected = nadeau_bengio(values, 48, 12)
    found = run(table, None, sizes()).metrics
    assert found["primary"]["auroc"]["value"] == pytest.approx(expected.value, abs=1e-12)
    assert found["primary"]["auroc"]["low"] == pytest.approx(expected.low, abs=1e-12)
    assert found["fold_summary"]["auroc"]["sd"] == pytest.approx(np.std(values, ddof=1))


def test_the_order_of_rows_changes_nothing(make_predictions, sizes) -> None:
    table, baseline = make_predictions(), make_predictions(seed=1)
    shuffled = table.sample(frac=1, random_state=0)
    first, second = run(table, baseline, sizes()), run(shuffled, baseline, sizes())
    # Sums run in another order: the last digit may differ.
    assert first.metrics["pooled"]["auroc"] == pytest.approx(second.metrics["pooled"]["auroc"])
    assert first.metrics["primary"]["brier"]["value"] == pytest.approx(second.metrics["primary"]["brier"]["value"])


def test_slides_are_counted_at_slide_level(make_predictions, sizes) -> None:
    found = run(make_predictions(), None, sizes(), level="slide").metrics
    assert found["counts"]["classes"] == {"0": 60, "1": 60}
    assert found["folds"][0]["patients"] == 12


def test_a_model_against_itself_differs_by_nothing(make_predictions, sizes) -> None:
    table = make_predictions()
    found = run(table, table, sizes()).metrics
    assert found["versus_baseline"]["auroc"] == {
        "value": 0.0,
        "low": None,
        "high": None,
        "interval": "mean of folds, model minus baseline, Nadeau-Bengio, 95%",
        "reason": "every fold gives the same: an interval would have no width",
    }
    assert says(found["warnings"], "baseline does as well or better")


def test_the_difference_is_paired_fold_by_fold(make_predictions, sizes) -> None:
    model, baseline = make_predictions(signal=2.5), make_predictions(signal=0.3, seed=1)
    found = run(model, baseline, sizes()).metrics
    ours = [fold["auroc"] for fold in found["folds"]]
    theirs = [fold["auroc"] for fold in run(baseline, None, sizes()).metrics["folds"]]
    expected = nadeau_bengio(np.subtract(ours, theirs), 48, 12, bounds=(-1, 1))
    assert found["versus_baseline"]["auroc"]["value"] == pytest.approx(expected.value)
    assert found["versus_baseline"]["auroc"]["low"] == pytest.approx(expected.low)
    assert not says(found["warnings"], "does as well or better")


def test_a_baseline_tested_on_other_patients_is_not_compared(make_predictions, sizes) -> None:
    table = make_predictions()
    found = run(table, table[table["patient"] != "p0"], sizes()).metrics
    assert found["versus_baseline"]["auroc"]["value"] == 0.0  # the four folds that agree
    none = run(table, None, sizes()).metrics
    assert none["versus_baseline"]["auroc"]["value"] is None
    assert none["baseline"]["auroc"]["value"] is None
    assert says(none["warnings"], "could not be compared with the baseline")


def test_pooled_is_null_where_folds_overlap(make_predictions, sizes) -> None:
    table = make_predictions()
    again = table[table["fold"] == 0].assign(fold=1)
    found = run(pd.concat([table, again]), None, sizes())
    assert found.metrics["pooled"] is None
    assert says(found.metrics["warnings"], "12 patients tested in more than one fold")
    assert "counts once" in found.curves["note"]
    assert np.sum(found.curves["confusion"]["counts"]) == 60


def test_repeats_are_folds_of_their_own(make_predictions, sizes) -> None:
    table = pd.concat([make_predictions(), make_predictions(seed=1).assign(repeat=1)])
    split = [*sizes(), *(FoldSize(s.fold, s.train, s.test, repeat=1) for s in sizes())]
    found = run(table, None, split).metrics
    assert [(fold["repeat"], fold["fold"]) for fold in found["folds"]] == [(r, k) for r in (0, 1) for k in range(5)]
    assert found["pooled"] is None


def test_a_fold_of_one_class_is_null_and_said(make_predictions, sizes) -> None:
    table = make_predictions()
    table = table[~((table["fold"] == 2) & (table["cancer"] == "1"))]
    found = run(table, None, sizes()).metrics
    assert found["folds"][2]["auroc"] is None
    assert found["folds"][2]["accuracy"] is not None
    others = [fold["auroc"] for fold in found["folds"] if fold["fold"] != 2]
    assert found["primary"]["auroc"]["value"] == pytest.approx(np.mean(others))
    assert says(found["warnings"], "Fold 2 tests no patient of class 1", "auroc")
    assert says(found["warnings"], "Fold 2: 6 of 12 test patients have a prediction")


def test_one_class_in_all_folds_is_null_and_no_crash(make_predictions, sizes) -> None:
    table = make_predictions()
    found = run(table[table["cancer"] == "0"], None, sizes())
    assert found.metrics["primary"]["auroc"]["value"] is None
    assert found.metrics["pooled"]["auroc"]["value"] is None
    assert found.metrics["pooled"]["accuracy"]["value"] is not None
    assert says(found.metrics["warnings"], "No tested patient of class 1")


def test_one_patient_is_no_crash() -> None:
    row = {"slide": "a", "patient": "a", "fold": 0, "set": "test", "cancer": "1", "p_0": 0.1, "p_1": 0.9}
    found = run(pd.DataFrame([row]), None, [FoldSize(0, 9, 1)]).metrics
    assert found["primary"]["accuracy"] == {
        "value": 1.0,
        "low": None,
        "high": None,
        "interval": "mean of folds, Nadeau-Bengio, 95%",
        "reason": "one fold: there is no spread over folds",
    }
    assert says(found["warnings"], "One fold only")


def test_warnings_of_the_caller_stand_first(make_predictions, sizes) -> None:
    found = run(make_predictions(), None, sizes(), warnings=["Patient p1 is on both sides of fold 0."])
    assert found.metrics["warnings"][0] == "Patient p1 is on both sides of fold 0."


def test_few_patients_and_chance_are_said(make_predictions, sizes) -> None:
    found = run(make_predictions(20, signal=0, seed=4), None, sizes(20)).metrics
    assert says(found["warnings"], "Only 10 patients of class")
    assert says(found["warnings"], "chance is not excluded")


def test_a_model_that_says_the_same_of_everyone_is_said(make_predictions, sizes) -> None:
    found = run(make_predictions().assign(p_0=0.7, p_1=0.3), None, sizes()).metrics
    assert found["primary"]["auroc"]["value"] == 0.5
    assert says(found["warnings"], "says the same of every patient")


def test_a_class_that_is_never_decided_is_said(make_predictions, sizes) -> None:
    table = make_predictions()
    table["p_1"] /= 3
    table["p_0"] = 1 - table["p_1"]
    assert says(run(table, None, sizes()).metrics["warnings"], "ever decided to be of class 1")


def test_folds_on_different_scales_are_said(make_predictions, sizes) -> None:
    table = make_predictions(signal=3)
    table["p_1"] = 0.2 * table["fold"] + 0.2 * table["p_1"]
    table["p_0"] = 1 - table["p_1"]
    assert says(run(table, None, sizes()).metrics["warnings"], "do not share a scale")


def test_a_sound_study_has_no_warnings(make_predictions, sizes) -> None:
    model, baseline = make_predictions(200, signal=1.2), make_predictions(200, signal=0.1, seed=3)
    assert run(model, baseline, sizes(200)).metrics["warnings"] == []


def test_rows_without_a_label_are_said(make_predictions, sizes) -> None:
    table = make_predictions()
    table.loc[0, "cancer"] = None
    assert says(run(table, None, sizes()).metrics["warnings"], "1 prediction without a label")


def test_three_classes_are_evaluated(make_predictions, sizes) -> None:
    classes = ["a", "b", "c"]
    table = make_predictions(90, classes=classes)
    task = TASK | {"classes": classes}
    found = evaluate(table, table, task=task, level="patient", split=sizes(90), resamples=100)
    assert found.metrics["primary"]["auroc"]["value"] > 0.7
    assert [entry["class"] for entry in found.curves["discrimination"]] == classes
    assert np.sum(found.curves["confusion"]["counts"]) == 90


def test_external_rows_have_figures_of_their_own(make_predictions, sizes) -> None:
    inside = make_predictions()
    outside = pd.concat(
        [make_predictions(20, folds=1, seed=7).assign(fold=k, set="external") for k in range(5)]
    ).replace({"patient": r"^p"}, {"patient": "x"}, regex=True)
    outside["cancer"] = np.where(outside["patient"].str[1:].astype(int) < 8, "0", "1")
    both, alone = run(pd.concat([inside, outside]), None, sizes()), run(inside, None, sizes())
    assert both.metrics["primary"] == alone.metrics["primary"]
    assert both.metrics["pooled"] == alone.metrics["pooled"]
    external = both.metrics["external"]
    assert external["counts"]["patients"] == 20
    assert external["auroc"]["interval"].startswith("mean of 5 fitted models, Newcombe's method 5")
    only = run(outside, None, [], sites=pd.Series(dict.fromkeys(outside["slide"], "elsewhere")))
    assert only.metrics["external"] == external
    assert only.metrics["primary"]["auroc"]["value"] is None
    assert only.curves["set"] == "external"
    assert np.sum(only.curves["confusion"]["counts"]) == 20
    assert [(row["site"], row["patients"]) for row in only.curves["sites"]] == [("elsewhere", 20)]
    assert says(only.metrics["warnings"], "Only 8 patients of class 0")
    assert both.curves["set"] == "test"


def test_nothing_to_evaluate_is_no_crash(make_predictions) -> None:
    found = run(make_predictions()[:0], None, [])
    assert says(found.metrics["warnings"], "no prediction to evaluate")


def test_sites_of_slides_become_sites_of_patients(make_predictions, sizes) -> None:
    table = make_predictions()
    sites = pd.Series({slide: "A" if int(slide[1:-2]) < 30 else "B" for slide in table["slide"]})
    sites["p0-1"] = "B"
    found = run(table, None, sizes(), sites=sites).curves["sites"]
    assert [(row["site"], row["patients"]) for row in found] == [("A", 29), ("A + B", 1), ("B", 30)]
    assert found[0]["auroc"]["value"] is not None
    assert "too few" in found[1]["reason"]


def test_a_fold_that_the_split_does_not_have_is_refused(make_predictions, sizes) -> None:
    with pytest.raises(TableError, match="not in the split"):
        run(make_predictions(), None, sizes()[:4])


def test_evaluation_repeats_with_its_seed(make_predictions, sizes) -> None:
    first, second = (run(make_predictions(), None, sizes(), seed=3) for _ in range(2))
    assert first == second
    assert run(make_predictions(), None, sizes(), seed=4).metrics["pooled"] != first.metrics["pooled"]


def test_folds_that_overlap_are_resampled_together(make_predictions, sizes) -> None:
    inside = make_predictions()
    twice = pd.concat([inside, inside.assign(repeat=1)])
    split = [*sizes(), *(FoldSize(size.fold, size.train, size.test, repeat=1) for size in sizes())]
    found = run(twice, None, split).metrics
    assert found["pooled"] is None
    figure = found["across_folds"]["auroc"]
    assert figure["value"] == pytest.approx(found["primary"]["auroc"]["value"])
    assert figure["low"] < figure["value"] < figure["high"]
    assert "drawn once across all folds" in figure["interval"]
    # The second repeat is the first again: no more is known.
    assert "across_folds" not in run(inside, None, sizes()).metrics


def nulls_without_reason(metrics: dict) -> list[str]:
    parts = {part: metrics[part] for part in ("primary", "baseline", "versus_baseline", "pooled") if metrics[part]}
    return [
        f"{part} {name}"
        for part, figures in parts.items()
        for name, figure in figures.items()
        if isinstance(figure, dict) and figure["low"] is None and not figure.get("reason")
    ]


@pytest.mark.parametrize("patients", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("folds", [1, 2, 3])
def test_every_null_has_its_reason(make_predictions, sizes, patients: int, folds: int) -> None:
    table = make_predictions(patients, folds=folds)
    split = [FoldSize(k, 9, 3) for k in range(folds)]
    for baseline in (None, table):
        assert nulls_without_reason(run(table, baseline, split).metrics) == []


def test_a_null_names_the_folds_that_lack_a_class(make_predictions, sizes) -> None:
    table = make_predictions()
    table = table[~(table["fold"].isin([0, 2, 4]) & (table["cancer"] == "1"))]
    found = run(table, None, sizes()).metrics["primary"]["auroc"]
    assert found["low"] is None
    assert found["reason"] == "2 folds have this figure, 3 are needed: none of class 1 in folds 0, 2, 4"
    without = run(table[table["cancer"] == "0"], None, sizes()).metrics["primary"]["auroc"]
    assert without["reason"].startswith("no fold has this figure: none of class 1 in folds 0, 1, 2, 3, 4")


def test_folds_that_agree_by_luck_have_no_narrow_interval(make_predictions, sizes) -> None:
    table = make_predictions(60, folds=3, signal=0.6, seed=2)
    same = table[table["fold"] == 0]
    # Three folds of other patients with the same scores: their spread is 0, and twenty patients are still twenty.
    copies = [same.assign(fold=k, patient=same["patient"] + f"-{k}", slide=same["slide"] + f"-{k}") for k in range(3)]
    found = run(pd.concat(copies), None, [FoldSize(k, 40, 20) for k in range(3)]).metrics
    primary, pooled = found["primary"]["auroc"], found["pooled"]["auroc"]
    assert "widened to the sampling of the test patients" in primary["interval"]
    assert primary["high"] - primary["low"] > 0.9 * (pooled["high"] - pooled["low"])


def test_pooled_average_precision_ranks_within_folds(make_predictions, sizes) -> None:
    table = make_predictions(signal=2)
    shifted = table.copy()
    shifted["p_1"] = 0.19 * table["fold"] + 0.2 * table["p_1"]
    shifted["p_0"] = 1 - shifted["p_1"]
    one, other = (run(frame, None, sizes()).metrics["pooled"] for frame in (table, shifted))
    for name in ("auroc", "auprc"):
        assert one[name]["value"] == pytest.approx(other[name]["value"], abs=1e-12)


def test_there_is_one_calibration_error(make_predictions, sizes) -> None:
    found = run(make_predictions(), None, sizes())
    assert found.metrics["pooled"]["ece"]["value"] == pytest.approx(found.curves["trust"]["calibration"][0]["ece"])
    assert all(found.metrics[part]["ece"]["low"] is None for part in ("primary", "pooled"))


def test_the_area_under_the_drawn_curve_is_the_mean_over_folds(make_predictions, sizes) -> None:
    found = run(make_predictions(), None, sizes())
    (entry,) = found.curves["discrimination"]
    assert entry["roc"]["area"] == pytest.approx(found.metrics["primary"]["auroc"]["value"], abs=1e-12)
    assert entry["pr"]["area"] == pytest.approx(found.metrics["primary"]["auprc"]["value"], abs=1e-12)
    assert entry["roc"]["folds"] == 5
