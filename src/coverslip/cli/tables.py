"""What the command line prints: tables on a terminal, plain unwrapped lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coverslip.base.errors import SettingsError
from coverslip.base.registry import REGISTRIES, suggest

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def check_table(console: Console, report: Mapping[str, Any]) -> None:
    """Verdicts of the preflight, the worst first, each reason with its way out."""
    slides = sorted(report["slides"], key=lambda s: (["fail", "warn", "ok"].index(s["verdict"]), s["slide"]))
    for slide in slides:
        size = "x".join(map(str, slide["size"])) if slide.get("size") else "?"
        mpp = f"{slide['mpp']:.4g} µm/px" if slide.get("mpp") else "no µm/px"
        head = Text.assemble((f"{slide['verdict']:<5}", _COLOURS[slide["verdict"]]), slide["slide"])
        console.print(head + Text(f"  {size}  {mpp}  {slide.get('reader') or '-'}", "dim"), soft_wrap=True)
        for reason in slide["reasons"]:
            console.print(Text(f"      {reason['code']}: {reason['message']} {reason['fix']}".rstrip()), soft_wrap=True)
    counts = {v: sum(s["verdict"] == v for s in slides) for v in ("ok", "warn", "fail")}
    number = "1 slide" if len(slides) == 1 else f"{len(slides)} slides"
    console.print(f"{number}: {counts['ok']} ok, {counts['warn']} with warnings, {counts['fail']} failed")


def failure_table(console: Console, failed: Mapping[str, str], *, rest: str) -> None:
    """What failed and why, and what became of the rest."""
    console.print(f"{len(failed)} failed; {rest}")
    if not console.is_terminal:
        for name, reason in sorted(failed.items()):
            _plain(console, "failed", name, reason)
        return
    table = Table(box=None, show_header=False)
    table.add_column(no_wrap=True, style="red")
    table.add_column()
    for name, reason in sorted(failed.items()):
        table.add_row(Text(name), Text(reason))
    console.print(table)


def list_table(console: Console, kind: str) -> None:
    """The entries of a registry, one line each.

    Raises:
        SettingsError: no such kind.
    """
    if kind not in REGISTRIES:
        raise SettingsError(f"There is no list of {kind!r}.", fix=suggest(kind, list(REGISTRIES)))
    entries = [REGISTRIES[kind].entries[name] for name in REGISTRIES[kind].names()]
    if not console.is_terminal:
        for e in entries:
            _plain(console, e.name, e.summary, e.origin, e.licence, e.needs)
        return
    table = Table(box=None, header_style="bold")
    for column in ("name", "what it is", "origin", "licence", "needs"):
        table.add_column(column, no_wrap=column == "name")
    for e in entries:
        table.add_row(*map(Text, (e.name, e.summary, e.origin, e.licence, e.needs)))
    console.print(table)


def _plain(console: Console, *cells: str) -> None:
    """One line with tabs between the cells, for programs and log files; `print` would make spaces of the tabs."""
    console.file.write("\t".join(cells) + "\n")


def status_table(console: Console, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A line a stage: done, running, failed, missing, and which slides failed."""
    for stage, row in rows.items():
        counts = "  ".join(f"{name} {row[name]}" for name in ("done", "running", "failed", "missing") if name in row)
        console.print(f"{stage:<10} {counts}", soft_wrap=True)
        for slide, reason in row.get("reasons", {}).items():
            console.print(Text(f"           {slide}: {reason}", "red"), soft_wrap=True)


def show_metrics(console: Console, metrics: Mapping[str, Any]) -> None:
    """The headline, its baseline, and the warnings."""
    from coverslip.report.wording import p_value  # with pandas behind it: not for every command

    level = metrics["level"]
    external = metrics.get("external")
    names = metrics.get("shown") or ["auroc", "balanced_accuracy"]
    headline = names[0]
    for name in names:
        if external is not None:
            console.print(f"external {name}  {interval(external[name])}  ({level} level)", soft_wrap=True)
        else:
            console.print(f"{name}  {interval(metrics['primary'][name])}  ({level} level)", soft_wrap=True)
    baseline, pooled = metrics.get("baseline") or {}, metrics.get("pooled") or {}
    if external is None and headline in pooled:
        console.print(f"pooled {headline}  {interval(pooled[headline])}  ({level} level)", soft_wrap=True)
    if external is None and headline in baseline:
        console.print(f"baseline {headline}  {interval(baseline[headline])}  ({baseline['name']})", soft_wrap=True)
    localisation = metrics.get("localisation")
    if localisation:
        console.print(f"heatmaps find the annotated regions: {localisation['text']}", soft_wrap=True)
    if external is not None and external.get("baseline"):
        beside = external["baseline"]
        console.print(f"baseline {headline}  {interval(beside[headline])}  ({beside['name']})", soft_wrap=True)
        gap = external["versus_baseline"][headline]
        p = "" if gap.get("p") is None else f", {p_value(gap['p'])}"
        console.print(f"model minus baseline {headline}  {interval(gap)}{p}", soft_wrap=True)
    show_warnings(console, metrics.get("warnings", []))


def show_warnings(console: Console, warnings: Iterable[str]) -> None:
    """A line each."""
    for warning in warnings:
        console.print(Text(f"warning  {warning}", "yellow"), soft_wrap=True)


def show_comparison(console: Console, found: Mapping[str, Any]) -> None:
    """A line a method, what of their differences is noise, which to choose, and the warnings."""
    from coverslip.report.wording import p_value

    against = {one["method"]: one for one in found["reference"]["methods"]}
    rows = [
        ("method", f"{found['metric']}, {found['level']} level", "difference", "p (Holm)", "s a fold", "parameters")
    ]
    for one in [*found["methods"], found["linear"]]:
        gap, cost = against.get(one["name"]), one["cost"]
        rows.append(
            (
                one["name"],
                _spread(one["value"], ""),
                _spread(gap["difference"], "+") if gap else "baseline" if one is found["linear"] else "reference",
                "" if gap is None or gap["p_holm"] is None else p_value(gap["p_holm"]).removeprefix("p "),
                "–" if cost["train_seconds"] is None else f"{cost['train_seconds']:.1f}",
                "–" if cost["parameters"] is None else f"{cost['parameters']:,}",
            )
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths)).rstrip()
        console.print(Text(line, "bold" if row is rows[0] else ""), soft_wrap=True)
    console.print(found["noise"], soft_wrap=True)
    console.print(Text(f"choose {found['choice']['method'] or 'nothing'}", "bold"), soft_wrap=True)
    for reason in found["choice"]["reasons"]:
        console.print(f"  {reason}", soft_wrap=True)
    for warning in found["warnings"]:
        console.print(Text(f"warning  {warning}", "yellow"), soft_wrap=True)


def _spread(figure: Mapping[str, Any], sign: str) -> str:
    """ "0.920 (0.820 to 0.980)", without the interval where there is none."""
    if figure["value"] is None:
        return "–"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:{sign}.3f}"
    return f"{figure['value']:{sign}.3f} ({figure['low']:{sign}.3f} to {figure['high']:{sign}.3f})"


def interval(number: Mapping[str, Any] | None) -> str:
    """ "0.92 (0.82 to 0.98; how the interval was made)", or why there is no interval; a dash without a number."""
    why = (number or {}).get("reason")
    if not number or number.get("value") is None:
        return f"– ({why})" if why else "–"
    if number.get("low") is None or number.get("high") is None:
        return f"{number['value']:.3f} (no interval: {why or number.get('interval', '')})"
    return f"{number['value']:.3f} ({number['low']:.3f} to {number['high']:.3f}; {number.get('interval', '')})"
