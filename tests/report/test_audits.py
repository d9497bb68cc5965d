from __future__ import annotations

import json
from collections.abc import Callable
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
    assert [one["name"] for one in told["lists"]] == ["TRIPOD+AI", "CLAIM"]
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
