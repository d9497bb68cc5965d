"""`coverslip heatmap`: maps of a finished run. Each slide is explained by the models that did not train on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int
from numpy import ndarray
from PIL import Image

from coverslip.base.errors import CoverslipError, FeatureError, SettingsError, SlideError
from coverslip.base.files import atomic, read_json, write_json
from coverslip.base.geometry import Tiles
from coverslip.base.progress import SILENT, Progress
from coverslip.base.registry import suggest
from coverslip.base.study import Study
from coverslip.cohort import Split, load_cohort
from coverslip.eval.levels import median_level
from coverslip.eval.localisation import MappedSlide, localisation
from coverslip.eval.slices import worth_a_look
from coverslip.eval.truth import Task
from coverslip.explainers import TileScores
from coverslip.explainers import explain as explain_bag
from coverslip.mil import SlideModel
from coverslip.recipes.embed import feature_store
from coverslip.recipes.job import LOG, Job, working
from coverslip.recipes.predict import unseen
from coverslip.recipes.slides import opened, tile_images
from coverslip.slide import Slide
from coverslip.store import Features, OutcomeLog, Run
from coverslip.tissue import mask_from_geojson

_FEW = 20
_ALL = 50
_ANNOTATION_MPP = 8.0
_MAP_PX = 1000
# Tiles of a slide that stands for others.
_EXAMPLES = 3


@dataclass
class Maps:
    """The pictures that were drawn and the slides that failed."""

    pictures: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SlideMap:
    """The explanation of one slide of a run. `image` draws it over the slide where the run knows where that is."""

    scores: TileScores
    row: Mapping[str, Any] | None
    study: Study

    def image(self, *, mpp: float = 8.0) -> Image.Image:
        """The map at `mpp` µm per pixel, over the slide, with a scale bar.

        Raises:
            SlideError: the slide's file cannot be found or read.
        """
        if self.row is None:
            raise SlideError(
                "the run's table does not say where the slide is.",
                slide=self.scores.slide,
                fix="Draw it yourself: scores.image(slide, mpp=8).",
            )
        with opened(self.row, self.study) as slide:
            return self.scores.image(slide, mpp=mpp)


def explain(run: Run, bag: Features, *, method: str = "auto", target: str | None = None) -> SlideMap:
    """What each tile of a slide says to a run's models; models that trained on the slide are left out. `target` is the
    class, label or cause in question; `coverslip.explainers.explain` says which where not given.

    Raises:
        FeatureError: the features are of another encoder than the run's, or have no positions.
        SettingsError: the method cannot give such scores.
    """
    models = [SlideModel.load(run.files.model(fold.name)) for fold in unseen(run.split, bag.slide)]
    scores = explain_bag(models, bag, method=method, target=target)
    rows = {row["slide"]: row for row in _rows(run.settings)}
    return SlideMap(scores, rows.get(bag.slide), run.settings)


def heatmaps_of(
    run_folder: Path,
    slides: Sequence[str],
    *,
    method: str = "auto",
    target: str | None = None,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> Maps:
    """Draws the maps of some slides of a finished run.

    Raises:
        SettingsError: no such run, slide, method or target.
    """
    run = Run.open(run_folder)
    study = run.settings
    cohort = load_cohort(study.cohort, need_paths=True)
    unknown = [slide for slide in slides if slide not in cohort.slides]
    if unknown:
        raise SettingsError(f"The run has no slide {unknown[0]!r}.", fix=suggest(unknown[0], list(cohort.slides)))
    job = Job(study, cohort, run.files, feature_store(study), OutcomeLog(run.files.outcomes), progress)
    with working(run.files, "heatmap"):
        folder = out or run.files.heatmaps
        return _draw(job, run.split, list(slides), method=method, folder=folder, target=target)[0]


def draw_heatmaps(job: Job, metrics: dict[str, Any]) -> dict[str, Any]:
    """Draws the maps that the study asks for; the metrics, with how well the maps find annotated regions."""
    run = Run.open(job.run.folder)
    annotations = job.study.heatmaps.annotations
    task = metrics["task"]
    chosen = choose_slides(job.study.heatmaps.slides, run.predictions, task)
    if not chosen:
        return metrics
    maps, scores = _draw(job, run.split, chosen, method=job.study.heatmaps.method, folder=job.run.heatmaps)
    if maps.failed:
        metrics = {**metrics, "warnings": [*metrics["warnings"], f"{len(maps.failed)} maps could not be drawn."]}
    if annotations is not None:
        found = _localised(job, run.split, scores, Path(annotations))
        metrics = {**metrics, "localisation": found}
    write_json(job.run.metrics, metrics)
    return metrics


def cut_slices(job: Job) -> None:
    """Cuts example tiles, those that count most, of the slides in groups where errors gather; those with a map have
    theirs. None where the study asks for no tiles or no audits."""
    number = min(_EXAMPLES, job.study.heatmaps.tiles)
    if not number or not job.run.audit.is_file():
        return
    run = Run.open(job.run.folder)
    found = worth_a_look(read_json(job.run.audit).get("slices") or {})
    named = sorted({str(slide) for row in found for slide in row.get("slides") or []})
    todo = [slide for slide in named if not (job.run.heatmaps / "tiles" / f"{slide}.json").is_file()]

    def cut(slide: Slide, features: Features, scores: TileScores) -> Path:
        _write_tiles(slide, features, scores, {"top": scores.top(number)}, job.run.slices)
        return job.run.slices / f"{slide.id}.json"

    _explained(job, run.split, todo, cut, method=job.study.heatmaps.method, what="example tiles")


def choose_slides(wanted: str | int, predictions: pd.DataFrame, task: Mapping[str, Any]) -> list[str]:
    """The slides to draw: all, none, a number, or auto (all up to 50, else 20), dealt over classes, right and wrong.

    Where the task has no classes, they are spread evenly over what was predicted, from the lowest to the highest.
    """
    slides = sorted(predictions["slide"].unique())
    if wanted == "none" or wanted == 0:
        return []
    if wanted == "all" or (wanted == "auto" and len(slides) <= _ALL):
        return slides
    number = _FEW if wanted == "auto" else int(wanted)
    column, classes = task["column"], task["classes"]
    if task.get("kind", "classification") not in ("classification", "ordinal"):
        first = Task.of(task).reader.predictions(Task.of(task))[0]
        ranked = predictions.groupby("slide")[first].mean().sort_values(kind="stable").index
        return sorted({ranked[place] for place in np.linspace(0, len(ranked) - 1, number).round().astype(int)})
    p = predictions.groupby("slide")[[f"p_{name}" for name in classes]].mean()
    truth = predictions.groupby("slide")[column].first()
    stated = p.to_numpy()
    decided = np.array(classes)[median_level(stated) if task.get("kind") == "ordinal" else stated.argmax(axis=1)]
    table = pd.DataFrame(
        {"truth": truth.loc[p.index], "right": decided == truth.loc[p.index].to_numpy(), "sure": p.max(axis=1)}
    )
    # The surest of each kind first: they show best what the model goes by, also where it errs.
    table = table.sort_values(["sure"], ascending=False, kind="stable")
    table["turn"] = table.groupby(["truth", "right"]).cumcount()
    return sorted(table.sort_values(["turn", "right"], kind="stable").index[:number])


def _draw(
    job: Job, split: Split, slides: list[str], *, method: str, folder: Path, target: str | None = None
) -> tuple[Maps, dict[str, TileScores]]:
    def write(slide: Slide, features: Features, scores: TileScores) -> Path:
        return _write(slide, features, scores, job.study, folder)

    return _explained(job, split, slides, write, method=method, target=target, what="map")


def _explained(
    job: Job,
    split: Split,
    slides: list[str],
    write: Callable[[Slide, Features, TileScores], Path],
    *,
    method: str,
    what: str,
    target: str | None = None,
) -> tuple[Maps, dict[str, TileScores]]:
    """Each slide explained by the models that did not train on it, opened, and written."""
    rows = {row["slide"]: row for row in job.rows}
    maps, drawn = Maps(), {}
    models: dict[str, SlideModel] = {}
    with job.progress.stage("heatmaps", len(slides), unit="slide") as step:
        for slide in slides:
            try:
                names = [fold.name for fold in unseen(split, slide)]
                for name in names:
                    models.setdefault(name, SlideModel.load(job.run.model(name)))
                features = job.store.read(slide)
                scores = explain_bag([models[name] for name in names], features, method=method, target=target)
                with opened(rows[slide], job.study) as opened_slide:
                    maps.pictures.append(write(opened_slide, features, scores))
                drawn[slide] = scores
            except (SlideError, FeatureError) as error:
                maps.failed[slide] = str(error).removeprefix(f"{slide}: ")
                job.outcomes.record(slide, "heatmap", "failed", maps.failed[slide])
                LOG.warning("%s: no %s: %s", slide, what, maps.failed[slide])
            step.advance(note=slide)
    return maps, drawn


def _write(slide: Slide, features: Features, scores: TileScores, study: Study, folder: Path) -> Path:
    """The slide's picture; GeoJSON, parquet, and its top and bottom tiles lie beside it."""
    picture = folder / f"{slide.id}.png"
    with atomic(picture) as temporary:
        scores.image(slide, mpp=study.heatmaps.mpp or _fitting_mpp(slide)).save(temporary, format="PNG")
    write_json(folder / f"{slide.id}.geojson", scores.geojson())
    scores.parquet(folder / f"{slide.id}.parquet")
    number = study.heatmaps.tiles
    _write_tiles(
        slide, features, scores, {"top": scores.top(number), "bottom": scores.bottom(number)}, folder / "tiles"
    )
    return picture


def _fitting_mpp(slide: Slide) -> float:
    """µm per pixel at which the longer side of the slide has `_MAP_PX` pixels; never finer than the slide."""
    return slide.require_mpp() * max(1.0, max(slide.size) / _MAP_PX)


def _write_tiles(
    slide: Slide, features: Features, scores: TileScores, ranks: Mapping[str, Int[ndarray, k]], folder: Path
) -> None:
    """Pictures of the tiles of each rank, by their numbers, and a list of them."""
    identity = features.identity
    if (
        not any(len(numbers) for numbers in ranks.values())
        or identity is None
        or features.coords is None
        or features.mpp is None
        or features.span is None
    ):
        return  # another tool's file does not say how its tiles were cut
    tissue = np.ones(len(features), np.float32)
    tiles = Tiles(slide.id, identity.spec, features.mpp, features.span, features.coords, tissue)
    entries = []
    for rank, numbers in ranks.items():
        for place, (i, image) in enumerate(zip(numbers, tile_images(slide, tiles, list(numbers)))):
            name = f"{slide.id}_{rank}_{place}.jpg"
            with atomic(folder / name) as temporary:
                Image.fromarray(image).save(temporary, format="JPEG", quality=85)
            x, y = features.coords[i]
            entries.append({"rank": rank, "score": float(scores.score[i]), "x": int(x), "y": int(y), "file": name})
    write_json(folder / f"{slide.id}.json", {"kind": scores.kind, "class": scores.target, "tiles": entries})


def _localised(job: Job, split: Split, drawn: Mapping[str, TileScores], folder: Path) -> dict[str, Any] | None:
    """How well the maps find the regions in `<slide>.geojson` of a folder."""
    rows = {row["slide"]: row for row in job.rows}
    slides = []
    for slide_id, scores in drawn.items():
        file = folder / f"{slide_id}.geojson"
        if not file.is_file() or not read_json(file).get("features"):
            continue
        try:
            with opened(rows[slide_id], job.study) as slide:
                mask = mask_from_geojson(file, slide, mpp=_ANNOTATION_MPP)
        except SlideError as error:
            LOG.warning("%s: its annotations cannot be used: %s", slide_id, error)
            continue
        inside = mask.fraction(scores.xy, scores.span, exclude=())
        slides.append(MappedSlide(slide_id, split.patients[slide_id], scores.score, inside))
    settings = job.study.evaluation
    return localisation(slides, resamples=settings.resamples, seed=settings.seed)


def _rows(study: Study) -> list[dict[str, Any]]:
    """The rows of the study's table, where it still is and says where the slides are."""
    try:
        cohort = load_cohort(study.cohort, need_paths=True)
    except CoverslipError:
        return []
    return [{str(k): v for k, v in row.items()} for row in cohort.frame.to_dict("records")]
