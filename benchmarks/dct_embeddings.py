"""What `exact=False` does to pixels and features: tiles halved by the JPEG decoder against tiles that are averaged.

The decoder halves by leaving out the higher frequencies of each block. To judge the difference, the same tiles are
also halved with the filters of other pipelines, Pillow's bilinear and bicubic. Compared are pixels (PSNR) and features:

- `texture`, and a ViT-S of timm with random weights from a seed. **No pretrained weights**: those of foundation models
  are not free to take along. A random network shows how far a difference of pixels carries, not what a trained one
  makes of it; run this with your encoder: `--encoder NAME --weights FILE`.
- Every dimension is first scaled to mean 0 and standard deviation 1 over the exact tiles. Without that a cosine says
  little: features of all tiles point almost the same way.
- `shift` is the length of the difference over the typical distance of a tile from the mean of all; `found again` the
  share of tiles whose nearest exact tile is the tile itself.

    python benchmarks/dct_embeddings.py /data/large --real DATA/wsi/cmu-1-small-region.svs DATA/prostate_slides/slides

Tiles have twice the µm per pixel of the slide's finest level: 0.5 on the slides made here, 1.0 on slides of 0.5.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import timm
import torch
from common import machine, table
from large_slides import make_slides
from PIL import Image

import coverslip as cs
from coverslip.base.geometry import Tiles, TileSpec

SIZE_PX = 224
BATCH = 32
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MADE = {
    "ap256_422_q75": "synthetic, 4:2:2",
    "gen256_420_q80": "synthetic, 4:2:0",
    "ap256_rgb_q70": "synthetic, RGB JPEG",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the slides are made and kept")
    parser.add_argument("--side", type=int, default=40_000, help="px a side of the slides")
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="slides in JPEG, or folders of them")
    parser.add_argument("--tiles", type=int, default=256, help="at most so many of each")
    parser.add_argument("--encoder", help="an encoder of Coverslip instead of the random ViT")
    parser.add_argument("--weights", help="its weights")
    given = parser.parse_args()
    made = make_slides(given.folder, given.side)
    sources = {name: [made[key]] for key, name in MADE.items()}
    for path in given.real:
        sources[f"real, {path.stem}"] = sorted(path.iterdir()) if path.is_dir() else [path]
    encoders = {"texture": cs.encoder("texture"), **other_encoder(given)}
    rows = []
    for name, paths in sources.items():
        pictures = halved(paths, given.tiles)
        exact = pictures.pop("exact")
        known = {title: features(encoder, exact) for title, encoder in encoders.items()}
        for way, images in pictures.items():
            row = [name, str(len(exact)), way, psnr(exact, images)]
            for title, encoder in encoders.items():
                row += compared(known[title], features(encoder, images))
            rows.append(row)
    head = ["slide", "tiles", "halved by", "PSNR, dB (least)"]
    head += [f"{t}: {w}" for t in encoders for w in ("cosine (least)", "shift", "found again")]
    print(
        f"{machine()}, timm {timm.__version__}\n\nTiles of {SIZE_PX} px, each against the same tile averaged exactly.\n"
    )
    print(table(head, rows))


class RandomViT:
    """ViT-S/16 as timm makes it, with random weights: the same ones every time."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self._model = timm.create_model("vit_small_patch16_224", pretrained=False, num_classes=0).eval()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self._model(images.permute(0, 3, 1, 2).float() / 127.5 - 1)


def other_encoder(given: argparse.Namespace) -> dict[str, object]:
    if given.encoder:
        return {given.encoder: cs.encoder(given.encoder, weights=given.weights).eval()}
    return {"random ViT-S": RandomViT()}


def halved(paths: list[Path], most: int) -> dict[str, np.ndarray]:
    """The tiles of these slides (n, h, w, 3), halved in each way."""
    found: dict[str, list[np.ndarray]] = {"exact": [], "the decoder": [], **{name: [] for name in FILTERS}}
    for path in paths:
        with cs.Slide.open(path) as slide:
            spec = TileSpec(size_px=SIZE_PX, mpp=2 * slide.require_mpp(), min_tissue=0.5)
            tiles = cs.plan(slide, cs.segment(slide), spec, max_tiles=-(-most // len(paths)))
            found["exact"].append(read(slide, tiles, exact=True))
            found["the decoder"].append(read(slide, tiles, exact=False))
            stored = replace(tiles, spec=replace(spec, size_px=2 * SIZE_PX, stride_px=None, mpp=slide.require_mpp()))
            pixels = read(slide, stored, exact=True)
        for name, kind in FILTERS.items():
            resized = [np.asarray(Image.fromarray(tile).resize((SIZE_PX, SIZE_PX), kind)) for tile in pixels]
            found[name].append(np.stack(resized))
    return {name: np.concatenate(some) for name, some in found.items()}


def read(slide: cs.Slide, tiles: Tiles, *, exact: bool) -> np.ndarray:
    side = tiles.spec.size_px
    images = np.empty((len(tiles), side, side, 3), np.uint8)
    for batch in slide.tiles(tiles, batch=BATCH, exact=exact):
        assert batch.ok.all(), batch.errors
        images[batch.index] = batch.images
    return images


def features(encoder: object, images: np.ndarray) -> np.ndarray:
    def rows() -> Iterator[torch.Tensor]:
        for start in range(0, len(images), BATCH):
            some = torch.from_numpy(images[start : start + BATCH])
            yield encoder(some) if isinstance(encoder, RandomViT) else encoder(encoder.prepare(some))  # type: ignore[operator, attr-defined]

    with torch.inference_mode():
        return torch.cat(list(rows())).double().numpy()


def psnr(exact: np.ndarray, images: np.ndarray) -> str:
    error = np.square(exact.astype(np.float32) - images).mean(axis=(1, 2, 3))
    value = 10 * np.log10(255**2 / np.maximum(error, 1e-9))
    return f"{np.median(value):.1f} ({value.min():.1f})"


def compared(exact: np.ndarray, others: np.ndarray) -> list[str]:
    centre, spread = exact.mean(0), exact.std(0)
    used = spread > 1e-9
    a, b = ((some[:, used] - centre[used]) / spread[used] for some in (exact, others))
    length = np.linalg.norm(a, axis=1)
    cosine = (a * b).sum(1) / (length * np.linalg.norm(b, axis=1))
    shift = np.median(np.linalg.norm(a - b, axis=1)) / np.median(length)
    nearest = np.linalg.norm(b[:, None] - a[None], axis=2).argmin(1)
    again = (nearest == np.arange(len(a))).mean()
    return [f"{np.median(cosine):.4f} ({cosine.min():.4f})", f"{shift:.3f}", f"{again:.0%}"]


if __name__ == "__main__":
    main()
