"""What an embedding run leaves beside the feature files: outcomes, lines in run.log, progress, and embedding.json.

embedding.json (of shard 3/16: embedding.3-of-16.json) says how it was done and what limited it:

    {"format": "coverslip.embedding/1", "batch": 32, "threads": 2, "encoder": ..., "device": ..., "precision": ...,
     "limited_by": "encoding", "shares": {"encoding": 0.94, ...}, "tiles_per_s": 310.0, "sentence": "...",
     "skipped": {"by_slide": {"case-01": 3}}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from coverslip.base.files import write_json
from coverslip.encoders.advice import Advice, Timing
from coverslip.encoders.engine import Outcome
from coverslip.recipes.job import LOG, Job
from coverslip.store import RunFolder, Status

FORMAT = "coverslip.embedding/1"


class EmbedLedger:
    """Keeps the books of one embedding run; open it as a context manager. Engines tell it what they do, from one thread
    at a time."""

    def __init__(self, job: Job, slides: list[str]) -> None:
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, int] = {}
        self.locked: list[str] = []
        self.timing = Timing()
        self._job, self._slides = job, slides
        self._planned_tiles = self._planned_slides = 0
        self._ends = ExitStack()

    def __enter__(self) -> EmbedLedger:
        progress = self._job.progress
        self._slide_step = self._ends.enter_context(progress.stage("embed", len(self._slides), unit="slide"))
        self._tile_step = self._ends.enter_context(progress.stage("tiles", 0, unit="tile"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def planned(self, num_tiles: int) -> None:
        """A slide is planned and has `num_tiles` tiles to do; what the others will have is guessed from it."""
        self._planned_slides += 1
        self._planned_tiles += num_tiles
        self._tile_step.expect(round(self._planned_tiles / self._planned_slides * len(self._slides)))

    def advanced(self, num_tiles: int) -> None:
        """`num_tiles` more are kept or left out."""
        self._tile_step.advance(num_tiles)

    def finished(self, outcome: Outcome) -> None:
        """A slide is done, used again, failed, or locked by another process."""
        slide = outcome.slide
        if outcome.status == "locked":
            self.locked.append(slide)
            return
        status: Status = outcome.status
        if status != "done":
            self.planned(0)
        note = outcome.note
        if outcome.skipped:
            self.skipped[slide] = outcome.skipped
            note += f", {outcome.skipped} damaged tiles left out"
        if outcome.error is not None:
            note = self.failed[slide] = str(outcome.error).removeprefix(f"{slide}: ")
            LOG.warning("%s failed: %s", slide, note)
        else:
            LOG.info("%s %s %s", slide, status, note)
        self._job.outcomes.record(slide, "embed", status, note, outcome.seconds)
        self._slide_step.advance(note=slide)

    def conclude(self, advice: Advice | None, how: Mapping[str, Any], *, shard: str = "1/1") -> None:
        """Says and keeps what limited the run; `advice` is None where there was nothing to embed.

        Raises:
            StoreError: the run folder cannot be written.
        """
        path = self._job.run.embedding(shard)
        record = read_embedding(self._job.run, shard) if advice is None else {**how, **advice.to_json()}
        if advice is not None:
            LOG.info("%s", advice.sentence)
            self._job.progress.say(advice.sentence)
        if record or self.skipped:
            write_json(path, {**record, "format": FORMAT, "skipped": {"by_slide": self.skipped}})


def read_embedding(run: RunFolder, shard: str) -> dict[str, Any]:
    """What the run before kept; nothing where there is none, or none that can be read."""
    try:
        found = json.loads(run.embedding(shard).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("format") == FORMAT else {}
