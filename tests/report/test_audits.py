from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from coverslip.report import write_report
from coverslip.report.cards import ADD, data_label, model_card
from coverslip.report.checklists import CHECKLISTS, checklists
from coverslip.report.contents import read_contents
from coverslip.report.sections import SECTIONS, Absent
from coverslip.report.sections.warnings import cautions


def test_what_the_audits_found_stands_in_the_report_and_among_the_warnings(run_folder: Path, tmp_path: Path) -> None:
    page = write_report([run_folder], tmp_path / "report.html").read_text()
    for told in ("much: a model may live on it", "may be seen", "too few: 6 events, under 10", "look-alikes 1 of 4"):
        assert told in page
    assert any(c.gravity == "fail" and "same features" in c.headline for c in cautions(read_contents(run_folder)))


def test_a_run_without_audits_says_that_nobody_asked(copy_of: Callable[..., Path]) -> None:
    run = read_contents(copy_of(without=("audit.json",)))
    for name in ("shortcuts", "subgroups", "slices"):
        found = SECTIONS.load(name).build(run)
        assert isinstance(found, Absent) and "Nobody asked" in found.reason


def test_checklists_are_written_with_what_is_met_and_what_is_to_add(run_folder: Path, tmp_path: Path) -> None:
    write_report([run_folder], tmp_path / "report.html")
    told = json.loads((tmp_path / "checklists.json").read_text())
    assert [one["name"] for one in told["lists"]] == ["TRIPOD+AI", "CLAIM 2020"]
    items = {item["number"]: item for item in told["lists"][0]["items"]}
    assert items["12a"] == {**items["12a"], "status": "met", "where": "splits", "add": ""}
    assert items["17"]["status"] == "add" and items["17"]["add"]
    assert items["23a"]["status"] == "met"


def test_items_have_numbers_once_and_name_sections_that_there_are() -> None:
    for _, _, items in CHECKLISTS:
        assert len({item.number for item in items}) == len(items)
        assert {item.where for item in items} <= {"", *SECTIONS.names()}
        # What no run can answer says what the authors have to write.
        assert all(item.add or item.holds for item in items)


def test_items_are_those_of_the_published_lists() -> None:
    """TRIPOD+AI: 27 items, 52 with their parts. CLAIM of 2020: 42."""
    parts = dict.fromkeys(range(1, 28), "") | {3: "abc", 5: "ab", 6: "abc", 8: "abc", 9: "abc", 12: "abcdefg"}
    parts |= {18: "abcdef", 20: "abc", 23: "ab", 27: "abc"}
    tripod = [f"{n}{part}" for n in sorted(parts) for part in parts[n] or ("",)]
    (_, _, first), (_, _, second) = CHECKLISTS
    assert [item.number for item in first] == tripod and len(tripod) == 52
    assert [item.number for item in second] == [str(n) for n in range(1, 43)]


def test_an_empty_run_meets_nothing(copy_of: Callable[..., Path]) -> None:
    keep = copy_of(without=("audit.json", "metrics.json", "split.json", "cohort.json", "check.json", "evaluation.json"))
    found = {i["number"]: i for i in checklists(read_contents(keep))["lists"][0]["items"]}
    assert {found[n]["status"] for n in ("7", "12a", "12e", "20a", "21", "23a", "23b")} == {"add"}


def test_cards_tell_what_is_known_and_leave_the_rest_to_people(run_folder: Path) -> None:
    run = read_contents(run_folder)
    label, card = dict(data_label(run)), dict(model_card(run))
    assert label["Same slide twice"] == "1 pair with the same features"
    assert label["Institutions"] == "north (14) and south (6)"
    assert card["Encoder has learnt from"] == "TCGA"
    assert "same features" in card["What speaks against it"]
    assert ADD in label.values() and ADD in card.values()


# Words of the page that answer an item, by list, number, and section; every item that is met has its own here.
ANSWERS = {
    "TRIPOD+AI": {
        "4": "Model and baseline on the same folds", "5a": "Rows of the table", "6a": "Sites, patient level",
        "6b": "no value of lesion", "7": "ok", "8a": "the target was “lesion”", "9a": "encoded with “texture”",
        "9b": "224 × 224 px", "10": "25 slides of 20 patients", "11": "no value of lesion", "12a": "Tune",
        "12b": "Features were standardised", "12c": "at most 50 epochs", "12d": "What the site tells",
        "12e": "chance that a positive case", "12g": "The prediction for a new patient is the mean over",
        "13": "Classes were weighed in the loss", "14": "Minus the rest", "15": "a probability of each class",
        "18f": "coverslip", "20a": "Analysed", "20b": "Share", "20c": "by class (0 · 1)", "21": "by class (0 · 1)",
        "22": "aggregator", "23a": "Minus the rest", "23b": "95 %", "26": "Other patients",
        "27a": "truncated",
    },
    "CLAIM 2020": {
        "7": "Rows of the table", "8": "no value of lesion", "9": "cut into tiles", "10": "tissue were left out",
        "11": "the target was", "13": "no value of lesion", "19": "20 patients", "20": "Tune",
        "21": "No patient stands on two sides", "22": "gated attention pooling", "23": "numpy",
        "24": "Weights began at random values (seed 0)", "25": "Epoch kept", "26": "weights of the best epoch",
        "27": "the models of all 5 folds", "28": "AUROC", "29": "Nadeau-Bengio", "30": "What the site tells",
        "31": "Maps of 25 slides", "33": "Analysed", "34": "by class (0 · 1)", "35": "Every number below", "36": "95 %",
        "37": "look-alikes 1 of 4", "38": "Other patients, other scanners",
    },
}  # fmt: skip


def _texts(page: str) -> dict[str, str]:
    """The words of each section of a page."""
    parts = re.split(r'<section[^>]*id="run-1-([a-z]+)"', page)
    return {name: re.sub(r"<[^>]+>", " ", body) for name, body in zip(parts[1::2], parts[2::2])}


def test_each_item_that_is_met_has_its_text_in_the_page(run_folder: Path, tmp_path: Path) -> None:
    texts = _texts(html.unescape(write_report([run_folder], tmp_path / "report.html").read_text()))
    told = json.loads((tmp_path / "checklists.json").read_text())["lists"]
    for one in told:
        answered = {item["number"]: item for item in one["items"] if item["status"] != "add"}
        assert set(answered) == set(ANSWERS[one["name"]])
        for number, words in ANSWERS[one["name"]].items():
            assert words in texts[answered[number]["where"]], (one["name"], number)


def test_what_the_methods_text_does_not_say_is_not_met(run_folder: Path, copy_of: Callable[..., Path]) -> None:
    """Settings alone are no answer: features without the name of their encoder, no models, no audits, no events."""
    run = read_contents(copy_of(without=("models", "check.json", "audit.json")))
    environment = {**(run.environment or {}), "encoder": {"encoder": "", "dim": 192}}
    told = {
        one["name"]: {i["number"]: i["status"] for i in one["items"]}
        for one in checklists(replace(run, environment=environment))["lists"]
    }
    assert {told["TRIPOD+AI"][n] for n in ("9a", "9b", "12d", "12g", "14", "22", "23a", "27a")} == {"add"}
    assert {told["CLAIM 2020"][n] for n in ("9", "10", "25", "27", "30", "37")} == {"add"}
    split = {**(run.split or {}), "patients": {}, "folds": [{"fold": 0, "train": ["x"], "tune": ["y"], "test": ["z"]}]}
    without = {i["number"]: i["status"] for i in checklists(replace(run, split=split))["lists"][0]["items"]}
    assert without["12a"] == "met" and without["21"] == "add"
