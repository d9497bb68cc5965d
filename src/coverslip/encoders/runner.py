"""An encoder at work: batches of tiles in, rows out, always in one shape.

A matrix product may add up in another order when a batch has another size. So every batch goes through the encoder at
the same size, the last one padded: then a row depends on its tile alone, and a resumed run, another order of slides or
another engine gives the same bits on a CPU. A graphics card makes no such promise, and ours is none for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from torch import Tensor

from coverslip.base.errors import EncoderError
from coverslip.encoders.device import Precision, autocast
from coverslip.encoders.encoder import Encoder

LOG = logging.getLogger("coverslip")


@dataclass(frozen=True)
class Pending:
    """Rows that a device may still be computing."""

    _rows: Tensor
    _ready: Any = None  # a CUDA event, or None where the rows are there

    def rows(self) -> Float32[ndarray, "b d"]:
        """The rows; waits for the device."""
        if self._ready is not None:
            self._ready.synchronize()
        found: ndarray = self._rows.numpy()
        return found


class Runner:
    """Runs `encoder` over batches of exactly `batch` tiles, on its device, in one precision."""

    def __init__(self, encoder: Encoder, *, device: torch.device, precision: Precision, batch: int) -> None:
        """Moves the encoder to the device.

        Raises:
            EncoderError: it is in training mode, where equal tiles give unequal rows.
        """
        check_evaluates(encoder)
        self.encoder = encoder.to(device)
        self.device = device
        self.precision = precision
        self.batch = batch
        self.step = batch  # tiles in one pass: the batch, until the device runs out of memory
        self._cuda = device.type == "cuda"
        # Transfers have a stream of their own, so that batch k+1 travels while batch k is encoded.
        self._transfers = torch.cuda.Stream(device) if self._cuda else None

    @property
    def ahead(self) -> int:
        """Batches that may be submitted before the rows of the first are asked for."""
        return 2 if self._cuda else 1

    @property
    def in_place(self) -> bool:
        """True where a batch is read from wherever it lies in memory, and false where from a `buffer`."""
        return self.device.type == "cpu"

    def buffer(self, size_px: int) -> UInt8[Tensor, "b h w 3"]:
        """An empty batch for tiles of this side; page-locked where a graphics card reads it."""
        return torch.zeros((self.batch, size_px, size_px, 3), dtype=torch.uint8, pin_memory=self._cuda)

    def rows(self, images: UInt8[ndarray, "k h w 3"]) -> Float32[ndarray, "k d"]:
        """One row a tile, for up to `batch` tiles; the rest of the batch is padded."""
        k = len(images)
        assert 0 < k <= self.batch, (k, self.batch)
        padded = torch.zeros((self.batch, *images.shape[1:]), dtype=torch.uint8)
        padded[:k] = torch.from_numpy(images)
        return self.submit(padded).rows()[:k]

    def submit(self, images: UInt8[Tensor, "b h w 3"]) -> Pending:
        """Begins with a batch. `images` may be changed again once the rows are there.

        Raises:
            EncoderError: not even one tile fits into the device's memory.
        """
        assert len(images) == self.batch, (len(images), self.batch)
        if self._transfers is None:
            return Pending(self._encode(images.to(self.device)).float().cpu())
        compute = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._transfers):
            there = images.to(self.device, non_blocking=True)
        compute.wait_stream(self._transfers)
        there.record_stream(compute)
        rows = self._encode(there).float()
        back = torch.empty(rows.shape, dtype=torch.float32, pin_memory=True)
        back.copy_(rows, non_blocking=True)
        return Pending(back, compute.record_event())

    def _encode(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        while True:
            rows = self._attempt(images)
            if rows is not None:
                return rows
            if self.step == 1:
                raise EncoderError(
                    f"The encoder {self.encoder.info.name!r} does not fit into the memory of {self.device}, "
                    "not even with one tile.",
                    fix="Use a device with more memory, a smaller encoder, or encoder.precision = 'bf16'.",
                    code="memory",
                )
            self.step = -(-self.step // 2)
            LOG.warning(
                "%s is out of memory: batches of %d are encoded %d at a time", self.device, self.batch, self.step
            )
            if self._cuda:
                torch.cuda.empty_cache()

    def _attempt(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"] | None:
        """The rows, `step` tiles at a time; None where memory does not suffice, with all of it given back."""
        lacking = -len(images) % self.step
        if lacking:
            images = F.pad(images, (0, 0, 0, 0, 0, 0, 0, lacking))
        try:
            parts = [self._pass(part) for part in images.split(self.step)]
        except torch.OutOfMemoryError:
            return None
        return torch.cat(parts)[: self.batch] if len(parts) > 1 else parts[0][: self.batch]

    def _pass(self, images: UInt8[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        with torch.inference_mode(), autocast(self.precision, self.device):
            rows: Tensor = self.encoder(self.encoder.prepare(images))
        return rows


RunnerFor = Callable[[int], Runner]  # the side of the tiles in px -> a runner with its batch chosen


def check_evaluates(encoder: Encoder) -> None:
    """Nothing, for an encoder that gives equal rows for equal tiles.

    Raises:
        EncoderError: a part of it is in training mode.
    """
    if any(module.training for module in encoder.modules()):
        raise EncoderError(
            f"The encoder {encoder.info.name!r} is in training mode, where equal tiles give unequal rows.",
            fix="Call encoder.eval() first.",
        )
