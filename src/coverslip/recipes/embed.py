"""`coverslip embed`: tissue, tiles and features of every slide. One bad slide is named and left out.

What is done for one slide is the same whichever engine does it, and every step can be done in another process:

    planned = plan_slide(row, study, info, precision, overlay=...)  # opens the slide, finds tissue, lays tiles
    rows = claim(store, planned.tiles, planned.identity, on_bad=...)  # None: the file is there already
    for index in batches(rows.missing()):         # what an earlier run has finished is not done again
        rows.put(index, features)                 # any order; or rows.skip(i, reason) for a damaged tile
    rows.close()                                  # the feature file, whole and at once
    planned.slide.close()

`info` and `precision` come from `StudyEncoder`, which knows them before a network is built.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coverslip.base.errors import FeatureError, SettingsError, SlideError
from coverslip.base.geometry import Tiles
from coverslip.base.progress import SILENT, Progress
from coverslip.base.study import Study
from coverslip.encoders import Encoder, EncoderInfo, embed, encoder, encoder_info, identity
from coverslip.encoders.advice import advise
from coverslip.encoders.device import Precision, choose_device, choose_precision
from coverslip.encoders.engine import Engine, OnBad, Outcome, SlideWork, damaged_tile
from coverslip.encoders.runner import Runner
from coverslip.encoders.tuning import BatchChoice, ReadingThreads, choose_batch, cores
from coverslip.nn.pt_files import read_pt
from coverslip.recipes.embed_ledger import EmbedLedger, read_embedding
from coverslip.recipes.engine import LOCAL, open_engine
from coverslip.recipes.job import LOG, Job, Tally, open_job, working
from coverslip.recipes.slides import open_slide, opened, save_overlay, tiles_of, tissue_of
from coverslip.slide import Slide
from coverslip.store import FeatureIdentity, FeatureStore, FeatureWriter
from coverslip.store.sidecar import is_held

_WAIT_S = 2.0
_SAMPLE_TILES = 64


def feature_store(study: Study) -> FeatureStore:
    """The study's feature files, of ours or of other tools."""
    return FeatureStore(Path(study.features.store), readers={".pt": read_pt, ".pth": read_pt})


def embed_study(
    study: Study,
    *,
    shard: str = "1/1",
    engine: str = LOCAL,
    ray_address: str | None = None,
    progress: Progress = SILENT,
) -> Tally:
    """Makes the feature files of the study's slides (of every n-th slide with shard "i/n"); `engine` says where.

    Raises:
        SettingsError, TableError, EncoderError: what the user gave cannot work; nothing was begun.
        StoreError: the store cannot be written; what is finished stays.
    """
    part, parts = parse_shard(shard)
    job = open_job(study, need_paths=True, store=feature_store(study), progress=progress)
    with working(job.run, f"embed {shard}"), open_engine(engine, ray_address) as where:
        failed = where.embed(job, list(job.cohort.slides)[part - 1 :: parts], shard=shard)
        return Tally(job.run.folder, failed=failed)


def embed_slides(job: Job, slides: list[str], *, shard: str = "1/1") -> dict[str, str]:
    """Makes the feature files of these slides; the slides that failed with the reasons.

    A slide that another process is writing is left for the end and waited for. What limited the work is said, logged
    and kept in the run folder.
    """
    tiles = job.study.tiles
    model = StudyEncoder(job.study, known=read_embedding(job.run, shard))
    with EmbedLedger(job, slides) as ledger:
        waiting = list(slides)
        while waiting:
            ledger.locked = []
            _embed_pass(job, waiting, model, ledger)
            if ledger.locked == waiting:
                # Only slides of another process are left; it finishes them or dies and frees them.
                LOG.info("waiting for another process: %s", ", ".join(waiting))
                time.sleep(_WAIT_S)
            waiting = [slide for slide in waiting if slide in ledger.locked]
    job.store.tidy()
    advice = None
    if ledger.timing.num_tiles:
        advice = advise(
            ledger.timing,
            threads=model.threads.count,
            cores=cores(),
            device=model.device.type,
            movable=model.info.device != "cpu",
            exact=tiles.exact,
        )
    ledger.conclude(advice, model.how(tiles.size_px), shard=shard)
    return ledger.failed


def _embed_pass(job: Job, slides: list[str], model: StudyEncoder, ledger: EmbedLedger) -> None:
    """Embeds what is not locked by another process."""
    rows = {row["slide"]: row for row in job.rows}
    settings = job.study.tiles

    def prepare(slide: str) -> SlideWork | Outcome:
        if is_held(job.store.folder, slide):
            return Outcome(slide, "locked")
        planned = plan_slide(rows[slide], job.study, model.info, model.precision, overlay=job.run.tissue_overlay(slide))
        with ExitStack() as on_failure:
            on_failure.callback(planned.slide.close)
            writer = claim(job.store, planned.tiles, planned.identity, on_bad=settings.on_bad)
            if writer is None:
                return Outcome(slide, "reused", planned.note, skipped=len(job.store.read(slide, check=False).skipped))
            on_failure.pop_all()
        return SlideWork(planned.slide, planned.tiles, writer, planned.note)

    engine = Engine(prepare, model.runner, ledger, threads=model.threads, on_bad=settings.on_bad, exact=settings.exact)
    try:
        engine.run(slides)
    finally:
        ledger.timing.add(engine.timing)


@dataclass(frozen=True)
class PlannedSlide:
    """An open slide, its tiles, and what its feature file is or would be made from. Close `slide` when it is read."""

    slide: Slide
    tiles: Tiles
    identity: FeatureIdentity
    tissue_mm2: float

    @property
    def note(self) -> str:
        """What outcomes.csv says of it."""
        return f"{len(self.tiles)} tiles, {self.tissue_mm2:.4g} mm² of tissue"


def plan_slide(
    row: Mapping[str, Any], study: Study, info: EncoderInfo, precision: Precision, *, overlay: Path | None = None
) -> PlannedSlide:
    """The slide of a table's row, opened, with its tissue found and its tiles laid.

    `overlay` is where a thumbnail with the tissue outlined is kept for the report.

    Raises:
        SlideError: it cannot be read, or has no tissue; the file is closed again.
        EncoderError: the tiles' scale is not the encoder's.
    """
    with ExitStack() as on_failure:
        slide = on_failure.enter_context(open_slide(row, study))
        mask = tissue_of(slide, study)
        if overlay is not None:
            save_overlay(slide, mask, overlay)
        tiles = tiles_of(slide, mask, study)
        made = identity(slide, tiles, info, precision, exact=study.tiles.exact)
        assert mask.area_mm2 is not None, "tiles need a scale, so there is one"
        on_failure.pop_all()
    return PlannedSlide(slide, tiles, made, mask.area_mm2)


def claim(store: FeatureStore, tiles: Tiles, made: FeatureIdentity, *, on_bad: OnBad = "fail") -> FeatureWriter | None:
    """The writer of the slide's rows, locked for this process until it is closed; None where the file is there.

    Leave it as a context manager does: `close()` when every tile is put or skipped, `release()` to go on another time.

    Raises:
        StoreError: another process writes this slide (code "locked"), or the store cannot be written.
        SlideError: an earlier run left damaged tiles out (`on_bad="skip"`), and now they are a failure.
    """
    if store.has(tiles.slide, made.fingerprint):
        _refuse_skipped({s.index: s.reason for s in store.read(tiles.slide, check=False).skipped}, tiles, on_bad)
        return None
    with ExitStack() as on_failure:
        writer = FeatureWriter(store.folder, tiles.slide, made, tiles.xy)
        on_failure.callback(writer.release)
        _refuse_skipped(writer.skipped(), tiles, on_bad)
        on_failure.pop_all()
    return writer


def _refuse_skipped(skipped: Mapping[int, str], tiles: Tiles, on_bad: OnBad) -> None:
    if skipped and on_bad == "fail":
        index = min(skipped)
        raise damaged_tile(tiles, index, skipped[index])


class StudyEncoder:
    """The study's encoder: what it is at once; the network, and how it is run, when the first slide needs them."""

    def __init__(self, study: Study, *, known: Mapping[str, Any] | None = None) -> None:
        """`known` is what an earlier run kept: a batch that it found for the same encoder and device is used again.

        Raises:
            EncoderError, SettingsError: weights or device are not there.
        """
        self._settings = study.encoder
        self._known = known or {}
        self.info = encoder_info(study.encoder.name, study.encoder.weights)
        self.device = choose_device(study.encoder.device, self.info)
        self.precision = choose_precision(study.encoder.precision, self.device, self.info)
        self.threads = ReadingThreads(None if study.encoder.threads == "auto" else study.encoder.threads)
        self._encoder: Encoder | None = None
        self._runner: Runner | None = None

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = encoder(self._settings.name, weights=self._settings.weights, device=self.device)
        return self._encoder

    def runner(self, size_px: int) -> Runner:
        """The encoder with its batch chosen for tiles of `size_px`; the choice is logged."""
        if self._runner is None:
            chosen = self._batch(size_px)
            LOG.info(
                "%s on %s in %s: batch %d (%s), %d reading threads%s",
                *(self.info.name, self.device, self.precision, chosen.batch, chosen.why, self.threads.count),
                "" if self.threads.settled else " to begin with",
            )
            self._runner = Runner(self.encoder, device=self.device, precision=self.precision, batch=chosen.batch)
        return self._runner

    def _batch(self, size_px: int) -> BatchChoice:
        fixed = None if self._settings.batch == "auto" else self._settings.batch
        if fixed is None and all(self._known.get(k) == v for k, v in self.facts(size_px).items()):
            # The rest of an unfinished store is encoded as its beginning was.
            return BatchChoice(int(self._known["batch"]), "found by the run before")
        return choose_batch(self.encoder, device=self.device, precision=self.precision, size_px=size_px, fixed=fixed)

    def facts(self, size_px: int) -> dict[str, Any]:
        """What a batch was found for."""
        hardware = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return {
            "encoder": self.info.name,
            "revision": self.info.revision,
            "device": hardware,
            "precision": self.precision,
            "tile_px": size_px,
        }

    def how(self, size_px: int) -> dict[str, Any]:
        """How tiles are encoded, for embedding.json; batch None as long as no slide needed one."""
        batch = None if self._runner is None else self._runner.batch
        return {"batch": batch, "threads": self.threads.count, **self.facts(size_px)}


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/16" as (2, 16).

    Raises:
        SettingsError: not of the form i/n with 1 <= i <= n.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise SettingsError(f"--shard {text!r} is not i/n with i from 1 to n.", fix="Example: --shard 3/16")
    return int(match[1]), int(match[2])


@dataclass
class Estimate:
    """What embedding would take. Rates are measured on one batch here; nothing was written to the store."""

    slides: int
    done: int
    tiles: int
    tiles_to_do: int
    tiles_per_s: float
    dim: int
    failed: dict[str, str] = field(default_factory=dict)

    def text(self) -> str:
        hours = self.tiles_to_do / self.tiles_per_s / 3600 if self.tiles_to_do else 0.0
        gigabytes = self.tiles * self.dim * 2 / 1e9
        return (
            f"{self.slides} slides, {self.done} embedded already, {len(self.failed)} failed\n"
            f"{self.tiles:,} tiles, {self.tiles_to_do:,} to do, {self.tiles_per_s:,.0f} a second (one batch, timed)\n"
            f"{hours:.2f} hours on this machine\n"
            f"{gigabytes:.3f} GB of features ({self.dim} numbers a tile, float16)"
        )


def estimate(study: Study, *, shard: str = "1/1", progress: Progress = SILENT) -> Estimate:
    """Plans every slide and times one batch of tiles; writes no features.

    Raises:
        SettingsError, TableError, EncoderError: what the user gave cannot work.
    """
    part, parts = parse_shard(shard)
    store = feature_store(study)
    job = open_job(study, need_paths=True, store=store, progress=progress)
    rows = job.rows[part - 1 :: parts]
    model = StudyEncoder(study)
    result = Estimate(len(rows), 0, 0, 0, 1.0, model.info.dim)
    rate: float | None = None
    with progress.stage("plan", len(rows), unit="slide") as step:
        for row in rows:
            try:
                with opened(row, study) as slide:
                    tiles = tiles_of(slide, tissue_of(slide, study), study)
                    result.tiles += len(tiles)
                    if store.has(slide.id, identity(slide, tiles, model.info, model.precision).fingerprint):
                        result.done += 1
                    else:
                        result.tiles_to_do += len(tiles)
                        rate = rate or _rate(slide, tiles, model)
            except (SlideError, FeatureError) as error:
                result.failed[row["slide"]] = str(error).removeprefix(f"{row['slide']}: ")
            step.advance(note=row["slide"])
    result.tiles_per_s = rate or 1.0
    return result


def _rate(slide: Any, tiles: Any, model: StudyEncoder) -> float:
    """Tiles a second, reading and encoding, after a first batch that warms everything up."""
    numbers = np.linspace(0, len(tiles) - 1, min(_SAMPLE_TILES, len(tiles))).round().astype(int)
    sample = type(tiles)(tiles.slide, tiles.spec, tiles.mpp, tiles.span, tiles.xy[numbers], tiles.tissue[numbers])
    seconds = 0.0
    for _ in range(2):
        start = time.monotonic()
        embed(slide, sample, model.encoder, batch=_SAMPLE_TILES, precision=model.precision)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds = time.monotonic() - start
    return len(sample) / max(seconds, 1e-6)
