"""Run folders in one HTML file: self-contained, without script or network, good to read and to print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup

from coverslip.base.errors import SettingsError
from coverslip.base.files import write_json, write_text
from coverslip.report import wording
from coverslip.report.checklists import checklists
from coverslip.report.comparison import comparison
from coverslip.report.contents import RunContents, read_contents
from coverslip.report.headline import Headline, headline
from coverslip.report.page import environment, frame
from coverslip.report.pseudonyms import pseudonymise as with_pseudonyms
from coverslip.report.sections import Absent, Section, all_sections
from coverslip.report.sections.warnings import cautions
from coverslip.store.run import Run


@dataclass(frozen=True)
class Rendered:
    """One section on the page; `absent` says why it has no body, `badge` stands beside its link."""

    name: str
    title: str
    body: Markup | None
    absent: str = ""
    badge: str = ""
    badge_kind: str = ""


@dataclass(frozen=True)
class Chapter:
    """One run on the page."""

    run: RunContents
    anchor: str
    head: Headline
    sections: tuple[Rendered, ...]


def write_report(
    runs: Sequence[Path | Run], out: Path | None = None, *, pseudonymise: bool = False, title: str | None = None
) -> Path:
    """The path of the written HTML file: `out`, or `report.html` in the folder of the only run.

    Several runs get a comparison on top. Beside the report of one run its reporting checklists are written as
    `checklists.json`. With `pseudonymise` no slide or patient id, path, host, user, date or time of
    the runs is in the file. Label and macro images are never included.

    Raises:
        SettingsError: no run, or several runs and no `out`.
        StoreError: a folder is no run, a file in it is damaged (named), or `out` cannot be written.
    """
    folders = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    if not folders:
        raise SettingsError("A report needs at least one run folder.")
    if out is None and len(folders) > 1:
        raise SettingsError(
            "A report of several runs belongs to none of their folders.", fix="Say where it goes: --out FILE."
        )
    path = folders[0] / "report.html" if out is None else Path(out)
    contents = [read_contents(folder) for folder in folders]
    if pseudonymise:
        contents = with_pseudonyms(contents)
    write_text(path, render(contents, title=title))
    if len(contents) == 1 and contents[0].metrics is not None:
        write_json(path.with_name("checklists.json"), checklists(contents[0]))
    return path


def render(runs: Sequence[RunContents], *, title: str | None = None) -> str:
    """The page of these runs as HTML text."""
    templates = environment()
    runs = _told_apart(runs)
    chapters = [_chapter(run, f"run-{i}", templates) for i, run in enumerate(runs, start=1)]
    return templates.get_template("page.html").render(
        **frame(),
        title=title or _title(runs),
        runs=chapters,
        comparison=comparison([(chapter.anchor, chapter.run) for chapter in chapters]),
        pseudonymised=any(run.pseudonymised for run in runs),
    )


def _told_apart(runs: Sequence[RunContents]) -> list[RunContents]:
    """Runs of one name get a number behind it."""
    names = Counter(run.name for run in runs)
    return [
        replace(run, name=f"{run.name} ({i})") if names[run.name] > 1 else run for i, run in enumerate(runs, start=1)
    ]


def _title(runs: Sequence[RunContents]) -> str:
    given = runs[0].setting("report", "title")
    return str(given) if len(runs) == 1 and given else wording.listing([run.name for run in runs])


def _chapter(run: RunContents, anchor: str, templates: Environment) -> Chapter:
    rendered = tuple(_render(section, run, anchor, templates) for section in all_sections())
    return Chapter(run, anchor, headline(run), rendered)


def _render(section: Section, run: RunContents, anchor: str, templates: Environment) -> Rendered:
    context = section.build(run)
    if isinstance(context, Absent):
        return Rendered(section.name, section.title, None, context.reason)
    template = templates.from_string(section.template.read_text(encoding="utf-8"))
    body = Markup(template.render(run=run, anchor=anchor, **context))
    badge, kind = _badge(run) if section.name == "warnings" else ("", "")
    return Rendered(section.name, section.title, body, badge=badge, badge_kind=kind)


def _badge(run: RunContents) -> tuple[str, str]:
    found = cautions(run)
    grave = any(caution.gravity in ("leak", "fail") for caution in found)
    return (str(len(found)) if found else "", "fail" if grave else "warn")
