"""Run folders in one HTML file: self-contained, without script or network, good to read and to print."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, Undefined, select_autoescape
from markupsafe import Markup

from coverslip._version import __version__
from coverslip.base.errors import SettingsError
from coverslip.base.files import write_json, write_text
from coverslip.report import wording
from coverslip.report.checklists import checklists
from coverslip.report.comparison import comparison
from coverslip.report.contents import RunContents, read_contents
from coverslip.report.headline import Headline, headline
from coverslip.report.pseudonyms import pseudonymise as with_pseudonyms
from coverslip.report.sections import Absent, Section, all_sections
from coverslip.report.sections.warnings import cautions
from coverslip.store.run import Run

_TEMPLATES = Path(__file__).with_name("templates")


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
    environment = _environment()
    runs = _told_apart(runs)
    style = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
    chapters = [_chapter(run, f"run-{i}", environment) for i, run in enumerate(runs, start=1)]
    return environment.get_template("page.html").render(
        title=title or _title(runs),
        runs=chapters,
        comparison=comparison([(chapter.anchor, chapter.run) for chapter in chapters]),
        # The style is ours and its hash is all that the content policy lets in; nothing else can add one.
        style=Markup(style),
        style_hash=_hash(style),
        version=__version__,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
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


def _chapter(run: RunContents, anchor: str, environment: Environment) -> Chapter:
    rendered = tuple(_render(section, run, anchor, environment) for section in all_sections())
    return Chapter(run, anchor, headline(run), rendered)


def _render(section: Section, run: RunContents, anchor: str, environment: Environment) -> Rendered:
    context = section.build(run)
    if isinstance(context, Absent):
        return Rendered(section.name, section.title, None, context.reason)
    template = environment.from_string(section.template.read_text(encoding="utf-8"))
    body = Markup(template.render(run=run, anchor=anchor, **context))
    badge, kind = _badge(run) if section.name == "warnings" else ("", "")
    return Rendered(section.name, section.title, body, badge=badge, badge_kind=kind)


def _badge(run: RunContents) -> tuple[str, str]:
    found = cautions(run)
    grave = any(caution.gravity in ("leak", "fail") for caution in found)
    return (str(len(found)) if found else "", "fail" if grave else "warn")


def _environment() -> Environment:
    """Jinja with escaping always on: names, reasons and settings come from the user's files."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=_Missing,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=wording.number,
        count=wording.count,
        score=wording.score,
        percent=wording.percent,
        span=wording.span,
        listing=wording.listing,
        metric_label=wording.metric_label,
        plain=_plain,
    )
    return environment


class _Missing(Undefined):
    """A key that a user's JSON lacks may be tested and defaulted; printing one is an error, as is a misspelt name."""

    __str__ = Undefined._fail_with_undefined_error


def _plain(value: Any) -> str:
    """A setting or a fact as people write it."""
    if value is None or value == "":
        return wording.ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value)) or wording.ABSENT
    if isinstance(value, Mapping):
        return ", ".join(f"{key} = {_plain(inner)}" for key, inner in value.items()) or wording.ABSENT
    return str(value)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
