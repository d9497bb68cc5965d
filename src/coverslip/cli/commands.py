"""The command table: what each command takes, says and exits with. The work itself is in `coverslip.recipes`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from coverslip._version import __version__
from coverslip.base.registry import REGISTRIES
from coverslip.base.study import Study, load_study
from coverslip.cli.answers import show_answers
from coverslip.cli.progress import ConsoleProgress
from coverslip.cli.tables import (
    check_table,
    failure_table,
    list_table,
    show_comparison,
    show_metrics,
    show_warnings,
    status_table,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Whole-slide pathology images to a validated slide-level model, and the evidence for it.\n\n"
    "**Start with** `coverslip demo`, then `coverslip check` your own slides, then write a study file and "
    "`coverslip run` it.\n\n"
    "Exit codes: 0 done · 1 some slides failed, the rest is finished · 2 settings, table or files are wrong · "
    "130 interrupted (run again to go on).",
)
# What is printed is names and paths of users: no part of them is markup or an emoji.
_stderr = Console(stderr=True, highlight=False, markup=False, emoji=False)
_stdout = Console(highlight=False, markup=False, emoji=False)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.toml", help="The study's settings.")]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=c", help="Set one value over the file, as in --set tiles.mpp=0.5; repeatable."),
]
EngineName = Annotated[
    str, typer.Option("--engine", metavar="local|ray", help="Where the work is done: threads here, or a Ray cluster.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT|auto",
        help="With --engine ray: the cluster; without it one is started on this machine and ended afterwards.",
    ),
]
Control = Annotated[
    int | None,
    typer.Option(
        "--control",
        min=20,
        metavar="N",
        help="Train all of it N more times (20 or more) with outcomes dealt to other patients: a leak shows there.",
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show tracebacks.")]


def _recipe(name: str) -> Any:
    """The recipe's module, loaded when its command is called, so that help and check start without torch."""
    return importlib.import_module(f"coverslip.recipes.{name}")


def _progress() -> ConsoleProgress:
    return ConsoleProgress(_stderr)


def _study(path: Path, assignments: list[str] | None, control: int | None = None) -> Study:
    return load_study(path, [*(assignments or ()), *([f"evaluation.control={control}"] if control else [])])


def _finish(failed: dict[str, str], *, rest: str = "everything else is finished.") -> int:
    """Names the slides that failed; the exit code."""
    if failed:
        failure_table(_stderr, failed, rest=rest)
    return 1 if failed else 0


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        _stdout.print(__version__)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the demo lives.")] = Path("coverslip-demo"),
    verbose: Verbose = False,
) -> int:
    """Make a small cohort of realistic slides, one of them damaged on purpose, and run the main job on it.

    24 good slides of two sites, half with a lesion of known outline, go through preflight, tissue, tiles, features,
    5-fold patient-level validation, heatmaps and the report. No download. Exits 0 when exactly the damaged one failed.
    """
    result = _recipe("demo").demo(out, progress=_progress())
    show_metrics(_stdout, result.metrics)
    _stdout.print(f"report  {result.report}", soft_wrap=True)
    unexpected = set(result.failed) ^ set(result.damaged)
    if unexpected:
        _stderr.print(f"Unexpected outcome of: {', '.join(sorted(unexpected))}")
    return 1 if unexpected else 0


@app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Slides, folders of slides, DICOM folders.")],
    table: Annotated[Path | None, typer.Option("--table", help="Cohort table: its mpp column is used.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")] = False,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Slides checked at once.")] = 2,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds after which a slide is given up.")] = 120,
    verbose: Verbose = False,
) -> int:
    """Preflight: open every slide, decode a sample of every level, and give a verdict with reasons. Changes nothing.

    Finds damage, missing or contradictory µm/px, fluorescence, extra axes, blank slides, duplicates, and label images
    that may carry patient data. Exits 1 if any slide fails.
    """
    report = _recipe("check").check(paths, table=table, jobs=jobs, timeout_s=timeout, progress=_progress())
    result = report.to_json()
    if as_json:
        sys.stdout.write(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    else:
        check_table(_stdout, result)
    return 1 if any(slide["verdict"] == "fail" for slide in result["slides"]) else 0


@app.command(name="run")
def run_study(
    study: StudyFile,
    assignments: Assignments = None,
    control: Control = None,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    verbose: Verbose = False,
) -> int:
    """Everything: check, tissue, tiles, features, folds, training, evaluation, heatmaps, report.

    Finished work is reused where inputs and settings are the same; a slide that fails is named and left out.
    """
    result = _recipe("run").run(
        _study(study, assignments, control), engine=engine, ray_address=ray_address, progress=_progress()
    )
    show_metrics(_stdout, result.metrics)
    _stdout.print(f"report  {result.report}", soft_wrap=True)
    return _finish(result.failed)


@app.command()
def embed(
    study: StudyFile,
    assignments: Assignments = None,
    shard: Annotated[str, typer.Option("--shard", metavar="i/n", help="Part i of n, from 1: for job arrays.")] = "1/1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how many tiles, hours and GB it would be.")] = False,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    verbose: Verbose = False,
) -> int:
    """Tissue, tiles and features of every slide, up to the feature files.

    Resumes inside a slide. In a job array: `coverslip embed study.toml --shard $SLURM_ARRAY_TASK_ID/16`.
    """
    recipe = _recipe("embed")
    if dry_run:
        estimate = recipe.estimate(_study(study, assignments), shard=shard, progress=_progress())
        _stdout.print(estimate.text(), soft_wrap=True)
        return _finish(estimate.failed, rest="the estimate is of the others.")
    result = recipe.embed_study(
        _study(study, assignments), shard=shard, engine=engine, ray_address=ray_address, progress=_progress()
    )
    return _finish(result.failed)


@app.command()
def status(study: StudyFile, assignments: Assignments = None, verbose: Verbose = False) -> int:
    """What of a study is done, running, failed or missing."""
    result = _recipe("status").status(_study(study, assignments))
    status_table(_stdout, result)
    return 0


@app.command()
def train(
    study: StudyFile,
    assignments: Assignments = None,
    control: Control = None,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    verbose: Verbose = False,
) -> int:
    """From feature files to an evaluated run: folds, training, out-of-fold predictions, metrics. Opens no slide.

    Each fold trains 1 + evaluation.inner_folds models (3 inner ones by default): recalibration and operating points.
    `--set evaluation.inner_folds=0` leaves them out.
    """
    result = _recipe("train").train_study(
        _study(study, assignments, control), engine=engine, ray_address=ray_address, progress=_progress()
    )
    show_metrics(_stdout, result.metrics)
    _stdout.print(f"run  {result.folder}", soft_wrap=True)
    return _finish(result.failed)


@app.command()
def compare(
    study: StudyFile,
    aggregators: Annotated[
        str | None,
        typer.Option(
            "--aggregators",
            metavar="a,b:key=value,c",
            help="Methods to compare, with options behind colons; all of the study's compare.methods where not given.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="a", help="Tested against; abmil if among them, else the first."),
    ] = None,
    assignments: Assignments = None,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    verbose: Verbose = False,
) -> int:
    """Several methods on the same folds of feature files: paired differences, ranks, cost, which to choose.

    Each method is a run of its own below OUTPUT/compare; what is trained is not trained again. No inner folds.
    """
    result = _recipe("compare").compare_study(
        _study(study, assignments),
        aggregators=aggregators,
        reference=reference,
        engine=engine,
        ray_address=ray_address,
        progress=_progress(),
    )
    show_comparison(_stdout, result.metrics)
    _stdout.print(f"report  {result.report}", soft_wrap=True)
    return _finish(result.failed)


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    table: Annotated[
        Path,
        typer.Argument(metavar="TABLE", help="New slides: slide, patient, and path or --features."),
    ],
    features: Annotated[
        Path | None, typer.Option("--features", help="Folder of feature files; made from the slides where not given.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the results; RUN/external/TABLE where not given.")
    ] = None,
    verbose: Verbose = False,
) -> int:
    """A finished run on new slides or features: external validation.

    The folds' models are averaged. Where the table holds the run's target column, the metrics are computed too.
    """
    result = _recipe("predict").predict_table(run, table, features=features, out=out, progress=_progress())
    if result.metrics:
        show_metrics(_stdout, result.metrics)
    else:
        show_warnings(_stdout, result.warnings)
    show_answers(_stdout, result.said, result.no_metrics)
    _stdout.print(f"predictions  {result.predictions}", soft_wrap=True)
    _stdout.print(f"answers  {result.answers}", soft_wrap=True)
    return _finish(result.failed)


@app.command()
def heatmap(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")],
    slides: Annotated[list[str], typer.Argument(metavar="SLIDE", help="Slide ids of the run's cohort.")],
    method: Annotated[str, typer.Option("--method", help="An explainer: coverslip list explainers.")] = "auto",
    target: Annotated[
        str | None, typer.Option("--target", help="The class, label or cause in question; else what is predicted.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the maps; RUN/heatmaps where not given.")] = None,
    verbose: Verbose = False,
) -> int:
    """Maps of a finished run: PNG over the slide, GeoJSON for QuPath, parquet.

    Each slide is explained by the models that did not train on it.
    """
    result = _recipe("heatmap").heatmaps_of(run, slides, method=method, target=target, out=out, progress=_progress())
    for path in result.pictures:
        _stdout.print(str(path), soft_wrap=True)
    return _finish(result.failed)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Finished runs; several are compared.")],
    out: Annotated[Path | None, typer.Option("--out", help="The HTML file; RUN/report.html where not given.")] = None,
    title: Annotated[str | None, typer.Option("--title", help="Heading.")] = None,
    pseudonymise: Annotated[
        bool, typer.Option("--pseudonymise", help="Replace slide and patient ids, paths, hosts and dates.")
    ] = False,
    verbose: Verbose = False,
) -> int:
    """One self-contained HTML file of one or more runs: no network, good to read and to print."""
    path = _recipe("report").report(runs, out=out, title=title, pseudonymise=pseudonymise)
    _stdout.print(str(path), soft_wrap=True)
    return 0


@app.command(name="list")
def list_names(
    kind: Annotated[str, typer.Argument(metavar="|".join(REGISTRIES), help="What to list.")],
    verbose: Verbose = False,
) -> int:
    """What can be chosen by name: encoders, aggregators, augments, readers, tissue, tasks, explainers, engines.

    One line an entry: name, what it is, origin, licence, what it needs.
    """
    list_table(_stdout, kind)
    return 0


@app.command()
def convert(
    what: Annotated[str, typer.Argument(metavar="features|annotations|table", help="What the files are.")],
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A file, or a folder of them.")],
    target: Annotated[Path, typer.Argument(metavar="TO", help="A file, or a folder of them.")],
    to: Annotated[str, typer.Option("--to", help="features: coverslip, clam, trident, stamp, npz.")] = "coverslip",
    frame: Annotated[
        str | None, typer.Option("--frame", help="What coords are where the files do not say: level0_px or um.")
    ] = None,
    mpp: Annotated[float | None, typer.Option("--mpp", help="µm/px at level 0, where the files do not say.")] = None,
    verbose: Verbose = False,
) -> int:
    """Feature files, annotations and tables from and to other tools' layouts.

    features: HDF5 of CLAM, TRIDENT and STAMP, .pt, .npz → any of these layouts. annotations: ImageScope and ASAP XML,
    CAMELYON JSON, GeoJSON → GeoJSON that QuPath opens. table: CSV ↔ parquet.
    """
    return _finish(_recipe("convert").convert(what, source, target, to=to, frame=frame, mpp=mpp, progress=_progress()))
