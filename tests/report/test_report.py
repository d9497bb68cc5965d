"""The page as a whole: one safe file, warnings first, honest about what is absent."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from coverslip.base.errors import CoverslipError, SettingsError, StoreError
from coverslip.report import write_report
from coverslip.report.comparison import comparison
from coverslip.report.contents import read_contents
from coverslip.report.headline import verdict
from coverslip.report.sections import SECTIONS, Absent, all_sections
from coverslip.store.run import Run

PARTS = [
    "settings.toml",
    "split.json",
    "cohort.json",
    "predictions.csv",
    "metrics.json",
    "evaluation.json",
    "check.json",
    "outcomes.csv",
    "environment.json",
    "models",
    "tissue",
    "heatmaps",
]


class Tags(HTMLParser):
    """Every start tag with its attributes, and which tags were left open."""

    VOID = frozenset({"meta", "img", "br", "rect", "line", "circle", "path", "link", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="session")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report([run_folder], tmp_path_factory.mktemp("page") / "report.html").read_text(encoding="utf-8")


def text_of(html: str) -> str:
    """What a reader reads, roughly."""
    html = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_the_report_lies_in_the_folder_of_its_run(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    assert write_report([folder]) == folder / "report.html"
    assert (folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_opened_run_is_as_good_as_its_folder(run_folder: Path, tmp_path: Path) -> None:
    a = write_report([Run.open(run_folder, finished=False)], tmp_path / "a.html")
    b = write_report([run_folder], tmp_path / "b.html")
    drop_date = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
    assert drop_date.sub("", a.read_text("utf-8")) == drop_date.sub("", b.read_text("utf-8"))


def test_the_page_asks_the_network_for_nothing_and_runs_no_script(page: str) -> None:
    tags = Tags(page)
    assert not tags.open
    assert not tags.named("script") and not tags.named("link") and not tags.named("iframe")
    assert all((image["src"] or "").startswith("data:image/") for image in tags.named("img"))
    assert all((link["href"] or "").startswith("#") for link in tags.named("a"))
    assert not any(name.startswith("on") or name == "style" for _, attributes in tags.found for name in attributes)
    assert "http://" not in page and "https://" not in page and "url(" not in page and "@import" not in page


def test_the_content_policy_lets_in_this_style_and_data_images_only(page: str) -> None:
    policy = next(m["content"] for m in Tags(page).named("meta") if m.get("http-equiv") == "Content-Security-Policy")
    style = re.search(r"<style>(.*?)</style>", page, flags=re.S)
    assert style is not None and policy is not None
    digest = base64.b64encode(hashlib.sha256(style.group(1).encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_sections_stand_in_their_order_with_warnings_first(page: str) -> None:
    places = [page.index(f'id="run-1-{section.name}"') for section in all_sections()]
    assert places == sorted(places)
    assert all_sections()[0].name == "warnings"


def test_every_link_of_the_page_has_its_target(page: str) -> None:
    tags = Tags(page)
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {(link["href"] or "")[1:] for link in tags.named("a")} <= set(ids)


def test_pictures_and_figures_have_text_alternatives_and_tables_captions(page: str) -> None:
    tags = Tags(page)
    assert all(image.get("alt") for image in tags.named("img"))
    figures = [svg for svg in tags.named("svg") if svg.get("class", "").startswith("figure")]  # type: ignore[union-attr]
    assert len(figures) > 8 and all(svg.get("aria-label") for svg in figures)
    assert len(tags.named("table")) == len(tags.named("caption"))


def test_the_verdict_names_the_interval_the_level_and_the_baseline(page: str, run_folder: Path) -> None:
    text = text_of(page)
    assert re.search(
        r"AUROC 0\.\d\d \(95 %: 0\.\d\d to \d\.\d\d; mean of 5 patient folds, Nadeau-Bengio\), against "
        r"\d\.\d\d of the mean\+sd logistic baseline\.",
        text,
    )
    assert "test patients resampled, 200, 95%" in text  # the pooled number carries its label
    assert text.count("patient level") > 5


@pytest.mark.parametrize("part", PARTS)
def test_a_report_without_one_part_is_whole(part: str, copy_of: Callable[..., Path]) -> None:
    page = write_report([copy_of(without=(part,))]).read_text("utf-8")
    assert not Tags(page).open
    assert page.count("<section ") == len(all_sections())


@pytest.mark.parametrize("part", ["settings.toml", "metrics.json", "check.json", "predictions.csv", "outcomes.csv"])
def test_a_report_of_one_part_alone_is_whole(part: str, run_folder: Path, tmp_path: Path) -> None:
    shutil.copy(run_folder / part, tmp_path / part)
    assert not Tags(write_report([tmp_path]).read_text("utf-8")).open


@pytest.mark.parametrize(
    ("part", "section", "said"),
    [
        ("check.json", "preflight", "trained from feature files"),
        ("tissue", "tissue", "no tissue pictures"),
        ("heatmaps", "heatmaps", "no slide could be opened"),
        ("split.json", "splits", "no split.json"),
        ("metrics.json", "results", "stopped before its evaluation"),
        ("evaluation.json", "sites", "no column"),
    ],
)
def test_what_is_absent_is_said_with_the_reason(
    part: str, section: str, said: str, copy_of: Callable[..., Path]
) -> None:
    page = write_report([copy_of(without=(part,))]).read_text("utf-8")
    body = page[page.index(f'id="run-1-{section}"') :]
    assert said in text_of(body[: body.index("</section>")])


def test_markup_in_the_users_names_stays_text(copy_of: Callable[..., Path], edit: Any) -> None:
    evil = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"
    folder = copy_of()
    predictions = pd.read_csv(folder / "predictions.csv", dtype=str)
    predictions["slide"] = predictions["slide"].replace(predictions["slide"][0], evil)
    predictions.rename(columns={"p_1": f"p_{evil}", "lesion": evil}).replace({evil: {"1": evil}}).to_csv(
        folder / "predictions.csv", index=False
    )

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {(evil if k in ("1", "north") else k): poison(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(v) for v in value]
        return evil if isinstance(value, str) and value not in ("fail", "warn", "ok", "patient", "0") else value

    for name in ("metrics.json", "evaluation.json", "check.json", "environment.json", "cohort.json"):
        edit(folder / name, lambda value: value.update(poison(value)))
    for name in ("fold0/model.json", "fold1/model.json"):
        edit(folder / "models" / name, lambda value: value.update(poison(value)))
    page = write_report([folder], title=evil).read_text("utf-8")
    tags = Tags(page)
    assert "alert(" in page  # it is shown
    assert not tags.named("script")
    assert not any("onerror" in attributes for _, attributes in tags.found)
    assert all((image["src"] or "").startswith("data:") for image in tags.named("img"))


def test_leaks_are_told_in_red_above_every_number(copy_of: Callable[..., Path], edit: Any) -> None:
    folder = copy_of()
    leak = {"kind": "patient", "name": "case-4403", "sets": ["train", "test"], "fold": 2, "repeat": 0}
    edit(folder / "split.json", lambda split: split.update(leaks=[leak]))
    page = write_report([folder]).read_text("utf-8")
    assert page.index("Patients leak between training and test") < page.index('class="verdict leaking"')
    warnings = page[page.index('id="run-1-warnings"') :]
    assert re.search(r'<li class="caution (\w+)">', warnings).group(1) == "leak"  # type: ignore[union-attr]
    text = text_of(page)
    assert "case-4403" in text and "no conclusion can be drawn" in text
    assert "No patient stands on two sides" not in text


def test_several_runs_are_compared_on_top(copy_of: Callable[..., Path], edit: Any, tmp_path: Path) -> None:
    a, b = copy_of(name="a"), copy_of(name="b")
    edit(b / "split.json", lambda split: split.update(digest="0" * 16))
    page = write_report([a, b], tmp_path / "both.html").read_text("utf-8")
    assert page.index('id="comparison"') < page.index('id="run-1"') < page.index('id="run-2"')
    assert "do not share their folds" in page
    assert not Tags(page).open
    with pytest.raises(SettingsError, match="--out"):
        write_report([a, b])


def test_runs_that_share_their_folds_are_not_warned_of(copy_of: Callable[..., Path], tmp_path: Path) -> None:
    page = write_report([copy_of(name="a"), copy_of(name="b")], tmp_path / "both.html").read_text("utf-8")
    assert "do not share their folds" not in page
    assert '<h2 class="h1">Lesion demo (1)</h2>' in page and '<h2 class="h1">Lesion demo (2)</h2>' in page


def test_no_run_or_no_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        write_report([])
    with pytest.raises(StoreError, match="no run folder"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(StoreError, match="no part of a run"):
        write_report([tmp_path])


def test_a_report_that_cannot_be_written_is_a_clear_error(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises((CoverslipError, OSError)):
        write_report([run_folder], tmp_path / "file" / "report.html")


def test_the_title_is_the_callers_else_the_settings_else_the_runs_name(run_folder: Path, tmp_path: Path) -> None:
    def title(**options: str) -> str:
        page = write_report([run_folder], tmp_path / "r.html", **options).read_text("utf-8")  # type: ignore[arg-type]
        return re.search(r"<title>(.*?)</title>", page).group(1)  # type: ignore[union-attr]

    assert title() == "Lesion demo"
    assert title(title="A & B") == "A &amp; B"


@pytest.mark.parametrize(
    ("kind", "metric", "classes", "label"),
    [
        ("classification", "auroc", ["a", "b"], "AUROC"),
        ("classification", "auroc", ["a", "b", "c"], "Mean AUROC of the classes"),
        ("multilabel", "auroc", ["a", "b"], "Mean AUROC of the labels"),
        ("survival", "c_index", [], "C-index"),
        ("competing_risks", "c_index", ["a", "b"], "Mean C-index of the causes"),
        ("regression", "r2", [], "R²"),
        ("ordinal", "quadratic_kappa", ["1", "2", "3"], "Quadratic kappa"),
    ],
)
def test_the_headline_s_figure_has_the_name_of_the_kind_in_sites_and_where_runs_stand_side_by_side(
    kind: str, metric: str, classes: list[str], label: str, copy_of: Callable[..., Path]
) -> None:
    run = read_contents(copy_of())
    figure = {"value": 0.7, "low": 0.6, "high": 0.8, "interval": "95%"}
    metrics = {
        **(run.metrics or {}),
        "task": {"kind": kind, "column": "x", "classes": classes},
        "headline": metric,
        "primary": {metric: figure},
        "pooled": {metric: figure},
    }
    sites = [{"site": name, "patients": 20, metric: figure, "reason": None} for name in ("north", "south")]
    run = replace(run, metrics=metrics, evaluation={"sites": sites})
    found = SECTIONS.load("sites").build(run)
    assert not isinstance(found, Absent) and found["label"] == label
    assert label in verdict(run)
    beside = comparison([("a", run), ("b", run)])
    assert beside["title"] == label and [row["metric"] for row in beside["rows"]] == [label, label]
    mixed = comparison([("a", run), ("b", read_contents(copy_of()))])
    assert (mixed["title"] == "Headline figure") == (label != "AUROC")
