"""With pseudonyms nothing tells whose slides these are; without, everything stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.base.study import load_study
from coverslip.report import write_report
from coverslip.report.contents import RunContents, read_contents
from coverslip.report.pseudonyms import Pseudonyms, pseudonymise
from coverslip.store.run import save_settings


def without_pictures(page: str) -> str:
    """The page without its image data, in which any short text may stand by chance."""
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "base64,", page)


def test_no_id_path_host_or_date_of_the_run_is_in_the_page(
    run_folder: Path, tmp_path: Path, secrets: list[str]
) -> None:
    plain = without_pictures(write_report([run_folder], tmp_path / "plain.html").read_text("utf-8"))
    page = without_pictures(write_report([run_folder], tmp_path / "p.html", pseudonymise=True).read_text("utf-8"))
    # Otherwise the test below would hold for a page that shows nothing.
    assert sum(secret in plain for secret in secrets) > 40
    assert [secret for secret in secrets if secret.lower() in page.lower()] == []
    assert not re.search(r"\b(?:19|20)\d\d-\d\d-\d\d\b", page)
    assert "S001" in page and "P001" in page
    assert page.count("[path] ends after 61 % of its tiles") == 2  # a sentence that begins with a path stays one


def test_the_numbers_of_a_pseudonymised_report_are_those_of_the_plain_one(run_folder: Path, tmp_path: Path) -> None:
    def numbers(name: str, **options: bool) -> list[str]:
        page = write_report([run_folder], tmp_path / name, **options).read_text("utf-8")  # type: ignore[arg-type]
        return re.findall(r'<td class="num[^"]*">(.*?)</td>', page)

    assert numbers("a.html") == numbers("b.html", pseudonymise=True)


def test_pseudonyms_are_the_same_each_time_and_sorted_like_the_ids(run_folder: Path) -> None:
    one, two = (Pseudonyms([read_contents(run_folder)]) for _ in range(2))
    assert one.slides == two.slides and one.patients == two.patients
    assert list(one.slides.values()) == sorted(one.slides.values())
    assert list(one.slides) == sorted(one.slides)


def test_runs_of_one_cohort_share_their_pseudonyms(copy_of: Callable[..., Path]) -> None:
    a, b = pseudonymise([read_contents(copy_of(name="a")), read_contents(copy_of(name="b"))])
    assert a.predictions is not None and b.predictions is not None
    assert list(a.predictions["slide"]) == list(b.predictions["slide"])


def test_folders_of_persons_do_not_survive_in_settings(copy_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = copy_of()
    study = load_study(folder / "settings.toml")
    cohort = study.cohort.model_copy(
        update={"table": "/home/mmueller/Roe, Richard/table 2020.csv", "clinical": "C:\\Users\\mmueller\\c.csv"}
    )
    changed = study.model_copy(
        update={
            "name": "Slides of case-4403 by mmueller",
            "cohort": cohort,
            "report": study.report.model_copy(update={"title": "Biopsies of 4 July 2021, case-4403"}),
        }
    )
    save_settings(folder / "settings.toml", changed)
    page = without_pictures(write_report([folder], tmp_path / "p.html", pseudonymise=True).read_text("utf-8"))
    for secret in ("mmueller", "Roe", "Richard", "table 2020", "case-4403", "July 2021"):
        assert secret not in page


def test_a_file_named_after_a_person_stands_for_its_slide(
    copy_of: Callable[..., Path], edit: Any, tmp_path: Path
) -> None:
    folder = copy_of()

    def rename(check: dict[str, Any]) -> None:
        entry = check["slides"][5]
        entry["path"] = "archive/Roe_Richard.svs"
        entry["verdict"] = "warn"
        entry["reasons"] = [
            {"code": "mpp_missing", "message": "'Roe_Richard.svs' has no scale.", "fix": "See roe_richard."}
        ]

    edit(folder / "check.json", rename)
    page = write_report([folder], pseudonymise=True).read_text("utf-8")
    assert "roe" not in without_pictures(page).lower()
    assert re.search(r"&#39;S\d{3}\.svs&#39; has no scale", page)


def names_of(slides: list[str], patients: list[str]) -> Pseudonyms:
    frame = pd.DataFrame({"slide": slides, "patient": patients, "fold": 0, "set": "test"})
    return Pseudonyms([RunContents("r", Path("/nowhere/run"), predictions=frame)])


def test_a_slide_id_that_holds_its_patients_id_is_replaced_whole() -> None:
    names = names_of(["TCGA-05-A1", "TCGA-05-A1-B"], ["TCGA-05", "TCGA-05"])
    assert names.text("TCGA-05-A1-B, TCGA-05-A1, TCGA-05 and TCGA-05_new") == "S002, S001, P001 and P001_new"
    assert names.text("tcga-05-a1 in small letters") == "S001 in small letters"


def test_counts_are_not_taken_for_short_ids() -> None:
    names = names_of(["1", "2"], ["7", "B"])
    text = "3 of 7 slides; 1 slide lost; fold 2; class B; patient 7; slide '2'; patient: B"
    assert names.text(text) == "3 of 7 slides; 1 slide lost; fold 2; class B; patient P001; slide 'S002'; patient: P002"


@pytest.mark.parametrize(
    "text",
    [
        "/data/x/y.svs",
        "~/slides",
        "../other/a.csv",
        "C:\\slides\\a.svs",
        "\\\\srv\\share\\a.svs",
        "smb://srv/share",
        "https://lims.hospital.example/case?id=3",
        "someone@hospital.example",
        "10.0.12.7",
        "10.0.12.7:8080",
        "node17.cluster",
        "2021-07-09",
        "2021-07-09T10:11:12Z",
        "09.07.2021",
        "7/9/21",
        "20210709",
        "9 July 2021",
        "Jul 9, 2021",
        "10:11:12",
        "10:11",
    ],
)
def test_what_looks_like_a_place_or_a_time_is_replaced(text: str) -> None:
    found = names_of(["s"], ["p"]).text(f"Before {text} after")
    assert text not in found
    assert found.startswith("Before [") and found.endswith("] after")


@pytest.mark.parametrize(
    "text",
    [
        "0.5 µm/px",
        "AUROC 0.91 (0.80 to 0.98)",
        "mean of folds, Nadeau-Bengio, 95%",
        "train and/or test",
        "H&E stain",
        "https://huggingface.co/org/model",
        "torch 2.6.0",
        "ends after 61 % of its tiles",
        "fold 3: 12 of 14 test patients",
        "15b60cd78094e12f",
        "near_duplicate_of",
        "may be a copy",
        "class May 3x",
    ],
)
def test_plain_words_and_numbers_stay(text: str) -> None:
    assert names_of(["slide-1"], ["patient-1"]).text(text) == text


letters = st.characters(categories=("Lu", "Ll", "Nd"), include_characters="-_. ")
long_ids = st.text(letters, min_size=4, max_size=12).filter(lambda name: name[0].isalnum() and name[-1].isalnum())


@given(st.lists(long_ids, min_size=1, max_size=5, unique=True), st.data())
def test_a_long_id_is_replaced_wherever_it_stands_as_a_word(slides: list[str], data: st.DataObject) -> None:
    names = names_of(slides, ["p"] * len(slides))
    chosen = data.draw(st.sampled_from(slides))
    assert names.text(f"«{chosen}» ({chosen})") == "«{0}» ({0})".format(names.slide(chosen))


def test_class_names_stay_where_patients_are_called_alike() -> None:
    names = names_of(["a", "b"], ["0", "1"])
    task = {"classes": ["0", "1"], "patients": ["0"], "counts": {"0": 3, "1": 4}}
    assert names.value(task) == {"classes": ["0", "1"], "patients": ["P001"], "counts": {"0": 3, "1": 4}}


def test_an_id_that_reads_like_a_pseudonym_is_replaced_once() -> None:
    names = names_of(["S002", "S009", "alpha"], ["P002", "P009", "beta"])
    assert names.slides == {"S002": "S001", "S009": "S002", "alpha": "S003"}
    assert names.text("S002 of P002, S009 of P009, alpha of beta") == "S001 of P001, S002 of P002, S003 of P003"


def test_nothing_of_a_nested_value_is_lost_but_what_tells() -> None:
    names = names_of(["slide-1"], ["case-1"])
    assert names.value({"by_slide": {"slide-1": 0.9}}) == {"by_slide": {"S001": 0.9}}
    value = {"a": [1, 2.5, None, True], "slide": "slide-1", "host": "h", "created": "x", "case-1": {"path": "/a/b"}}
    assert names.value(value) == {
        "a": [1, 2.5, None, True],
        "slide": "S001",
        "host": "[host]",
        "created": "[date]",
        "P001": {"path": "[path]"},
    }
