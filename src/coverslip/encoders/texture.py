"""A classical descriptor of H&E tiles: stain-separated colour and texture at several scales, without any weights.

Every number has a name (`feature_names()`) and a plain meaning, listed below. It is the baseline that a learnt encoder
has to beat, and what the demo runs on. All of it is computed for a batch at once; a tile of 224 px costs a few
milliseconds on one core.

A tile is turned into optical density (Beer-Lambert: stain adds up there) and unmixed into haematoxylin, eosin and a
rest (what would be DAB) with the fixed matrix of Ruifrok and Johnston. Three scales are used: 1 is the tile, 2 and 4
are means over 2 x 2 and 4 x 4 pixels, so that at 0.5 µm/px they show chromatin (0.5), nuclei (1) and glands (2 µm per
pixel). Distances are in pixels of scale 2 where nothing else is said.

    colour.<c>.<s>          c = haematoxylin, eosin, rest, density, saturation (scale 2); s = mean, sd, skewness and the
                            quantiles q05 q25 q50 q75 q95 q99
    hue.cos, hue.sin        mean direction of the hue, weighted by chroma; hue.spread: how far hues lie apart, 0 to 1
    stain.correlation       of haematoxylin with eosin, pixel by pixel; stain.ratio: share of haematoxylin in both
    area.lumen              white share of the tile; area.white_blocks: blocks of 8 px that are white all over (lumen,
                            not cracks); area.blue: dense haematoxylin; area.pink: eosin over haematoxylin; area.dark
    gradient.<k>.<s>        slope of haematoxylin at scale k = 1, 2, 4: mean, sd, and the share that is steep
    variance.<c>.<w>.<s>    log of the standard deviation of haematoxylin and eosin in windows of w = 4, 8, 16 px: its
                            mean over windows, and how unequal windows are (sd)
    blob.<r>.<s>            haematoxylin blurred by one sigma less that blurred by the next (r = 1.6, 2.5, 4, 6.4 px):
                            mean of what is darker than around it (dark), and sd
    nuclei.<s>              spots that stand out as nuclei of 2 to 6 µm radius do: density (per 1000 px), stain and
                            response (mean, sd), area, size (log area a nucleus), inside (haematoxylin in them),
                            clustering (variance over mean of counts in blocks of 16 px), empty (blocks without one)
    lbp.<k>.<i>             uniform rotation-invariant local binary patterns of density at scale k = 1, 2, 4: share of
                            pixels with i = 0..8 neighbours not below them, 9: no uniform pattern (Ojala et al. 2002,
                            https://doi.org/10.1109/TPAMI.2002.1017623)
    contrast.<c>.<d>        mean absolute difference of haematoxylin and eosin over d = 1, 2, 4, 8, 16 px (what the
                            contrast of a co-occurrence matrix measures), both directions; for d > 1 over that at 1
    orientation.<s>         coherence of the structure tensor in windows of 16 px, mean and sd: strands and gland
                            borders against noise; orientation.global: of the whole tile
"""

from __future__ import annotations

from functools import cache

import numpy as np
from jaxtyping import Float32, UInt8
from numpy import ndarray
from scipy import ndimage

from coverslip.slide.stain import HED

Columns = dict[str, ndarray]  # name -> (b,)

MIN_PX = 64  # a smaller tile has no 16 px windows left at scale 4
_CHUNK = 8  # tiles at a time: their planes stay in the processor's cache
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_EPS = 1e-6

_UNMIX = np.linalg.inv(HED).astype(np.float32)


def describe(images: UInt8[ndarray, "b h w 3"]) -> Float32[ndarray, "b d"]:
    """One row of `feature_names()` a tile; finite for every tile, blank and black ones too."""
    assert images.dtype == np.uint8 and min(images.shape[1:3]) >= MIN_PX, (images.dtype, images.shape)
    chunks = [_columns(images[start : start + _CHUNK]) for start in range(0, len(images), _CHUNK)]
    if not chunks:
        return np.zeros((0, len(feature_names())), dtype=np.float32)
    rows = [np.stack(list(columns.values()), axis=1) for columns in chunks]
    return np.concatenate(rows).astype(np.float32)


@cache
def feature_names() -> tuple[str, ...]:
    """The names of a row's numbers, in order."""
    return tuple(_columns(np.full((1, MIN_PX, MIN_PX, 3), 255, dtype=np.uint8)))


def _columns(images: UInt8[ndarray, "b h w 3"]) -> Columns:
    height, width = (side - side % 4 for side in images.shape[1:3])  # scale 4 needs whole pixels
    density = -np.log((images[:, :height, :width].astype(np.float32) + 1) / 256)  # (b, h, w, 3) optical density
    stains = density @ _UNMIX  # haematoxylin, eosin, rest
    full = np.ascontiguousarray(stains[..., 0])
    halves = [_halve(stains[..., 0]), _halve(stains[..., 1]), _halve(stains[..., 2])]
    haematoxylin, eosin, rest = halves
    rgb = np.exp(-np.stack([_halve(density[..., i]) for i in range(3)], axis=1))  # (b, 3, h/2, w/2), 0..1
    chroma = rgb.max(axis=1) - rgb.min(axis=1)
    saturation = chroma / (rgb.max(axis=1) + _EPS)
    grey = _grey(density)
    grey_half = _halve(grey)
    quarter = _halve(haematoxylin)
    columns: Columns = {}
    planes = {
        "haematoxylin": haematoxylin,
        "eosin": eosin,
        "rest": rest,
        "density": grey_half,
        "saturation": saturation,
    }
    for name, plane in planes.items():
        columns |= _colour(name, plane)
    columns |= _hue(rgb, chroma)
    columns |= _stains(haematoxylin, eosin)
    columns |= _areas(haematoxylin, eosin, grey_half, saturation)
    for scale, plane in ((1, full), (2, haematoxylin), (4, quarter)):
        columns |= _gradients(scale, plane)
    columns |= _variances("haematoxylin", haematoxylin) | _variances("eosin", eosin)
    smooth = _pyramid(haematoxylin)
    columns |= _blobs(smooth) | _nuclei(smooth, haematoxylin)
    for scale, plane in ((1, grey), (2, grey_half), (4, _halve(grey_half))):
        columns |= _patterns(scale, plane)
    columns |= _contrasts("haematoxylin", haematoxylin) | _contrasts("eosin", eosin)
    columns |= _orientation(smooth[0])
    return columns


def _halve(x: ndarray) -> ndarray:
    """Means over 2 x 2 pixels."""
    height, width = (side - side % 2 for side in x.shape[1:3])
    x = x[:, :height, :width]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) * np.float32(0.25)


def _grey(density: ndarray) -> ndarray:
    return (density[..., 0] + density[..., 1] + density[..., 2]) * np.float32(1 / 3)


def _mean(x: ndarray) -> ndarray:
    return x.mean(axis=(1, 2))


def _mean_sd(x: ndarray) -> tuple[ndarray, ndarray]:
    return _mean(x), x.std(axis=(1, 2))


def _blocks(x: ndarray, px: int) -> ndarray:
    """(b, blocks, px * px): the plane in square windows; what does not fill one at the borders is left out."""
    b, height, width = x.shape
    rows, columns = height // px, width // px
    top, left = (height - rows * px) // 2, (width - columns * px) // 2
    x = x[:, top : top + rows * px, left : left + columns * px].reshape(b, rows, px, columns, px)
    return x.transpose(0, 1, 3, 2, 4).reshape(b, rows * columns, px * px)


def _colour(name: str, x: ndarray) -> Columns:
    mean, sd = _mean_sd(x)
    centred = x - mean[:, None, None]
    skewness = _mean(centred * centred * centred) / (sd**3 + _EPS)
    ordered = np.sort(x[:, ::2, ::2].reshape(len(x), -1), axis=1)  # every fourth pixel is plenty for quantiles
    columns = {f"colour.{name}.mean": mean, f"colour.{name}.sd": sd, f"colour.{name}.skewness": skewness}
    for q in _QUANTILES:
        columns[f"colour.{name}.q{round(q * 100):02d}"] = ordered[:, round(q * (ordered.shape[1] - 1))]
    return columns


def _hue(rgb: ndarray, chroma: ndarray) -> Columns:
    red, green, blue = rgb[:, 0], rgb[:, 1], rgb[:, 2]
    # The hue as a vector in the plane across the grey axis: its mean needs no angle and has no jump at red.
    x = _mean(red - (green + blue) / 2)
    y = _mean((green - blue) * np.float32(np.sqrt(3) / 2))
    length, weight = np.hypot(x, y), _mean(chroma) + _EPS
    return {"hue.cos": x / weight, "hue.sin": y / weight, "hue.spread": 1 - length / weight}


def _stains(haematoxylin: ndarray, eosin: ndarray) -> Columns:
    (h, h_sd), (e, e_sd) = _mean_sd(haematoxylin), _mean_sd(eosin)
    covariance = _mean((haematoxylin - h[:, None, None]) * (eosin - e[:, None, None]))
    h, e = np.maximum(h, 0), np.maximum(e, 0)
    return {"stain.correlation": covariance / (h_sd * e_sd + 1e-4), "stain.ratio": h / (h + e + 0.01)}


def _areas(haematoxylin: ndarray, eosin: ndarray, grey: ndarray, saturation: ndarray) -> Columns:
    white = (grey < 0.12) & (saturation < 0.12)
    return {
        "area.lumen": _mean(white),
        "area.white_blocks": _blocks(white, 8).all(axis=2).mean(axis=1),
        "area.blue": _mean(haematoxylin > 0.6),
        "area.pink": _mean((eosin > haematoxylin) & ~white),
        "area.dark": _mean(grey > 1.0),
    }


def _gradients(scale: int, x: ndarray) -> Columns:
    across = x[:, :-1, 1:] - x[:, :-1, :-1]
    down = x[:, 1:, :-1] - x[:, :-1, :-1]
    slope = np.sqrt(across * across + down * down)
    mean, sd = _mean_sd(slope)
    return {
        f"gradient.{scale}.mean": mean,
        f"gradient.{scale}.sd": sd,
        f"gradient.{scale}.steep": _mean(slope > 0.2),
    }


def _variances(name: str, x: ndarray) -> Columns:
    columns: Columns = {}
    for px in (4, 8, 16):
        deviation = np.log(_blocks(x, px).std(axis=2) + 0.01)
        columns[f"variance.{name}.{px}.mean"] = deviation.mean(axis=1)
        columns[f"variance.{name}.{px}.sd"] = deviation.std(axis=1)
    return columns


_SIGMAS = (1.0, 1.6, 2.5, 4.0, 6.4)


def _pyramid(x: ndarray) -> list[ndarray]:
    """The plane blurred with each of `_SIGMAS`, each from the one before."""
    blurred, done = [], 0.0
    for sigma in _SIGMAS:
        more = float(np.sqrt(sigma**2 - done**2))
        for axis in (1, 2):
            x = ndimage.gaussian_filter1d(x, more, axis=axis, truncate=2.5)
        blurred.append(x)
        done = sigma
    return blurred


def _blobs(smooth: list[ndarray]) -> Columns:
    columns: Columns = {}
    for fine, coarse, sigma in zip(smooth, smooth[1:], _SIGMAS[1:]):
        band = fine - coarse
        columns[f"blob.{sigma:g}.dark"] = _mean(np.maximum(band, 0))
        columns[f"blob.{sigma:g}.sd"] = band.std(axis=(1, 2))
    return columns


def _nuclei(smooth: list[ndarray], haematoxylin: ndarray) -> Columns:
    response = smooth[1] - smooth[4]  # what a nucleus of 2 to 6 µm radius stands out by
    peak = (response == ndimage.maximum_filter1d(ndimage.maximum_filter1d(response, 5, axis=1), 5, axis=2)) & (
        response > 0.08
    )
    area = response > 0.04
    _, height, width = response.shape
    count = peak.sum(axis=(1, 2)).astype(np.float32)
    found = np.maximum(count, 1)
    stain, height_mean = (np.where(peak, x, 0).sum(axis=(1, 2)) / found for x in (smooth[0], response))
    stain_sd, height_sd = (
        np.sqrt(np.maximum(np.where(peak, x * x, 0).sum(axis=(1, 2)) / found - mean * mean, 0))
        for x, mean in ((smooth[0], stain), (response, height_mean))
    )
    inside = np.where(area, haematoxylin, 0).sum(axis=(1, 2)) / np.maximum(area.sum(axis=(1, 2)), 1)
    counts = _blocks(peak, 16).sum(axis=2).astype(np.float32)
    return {
        "nuclei.density": count * (1000 / (height * width)),  # per 1000 px of scale 2
        "nuclei.stain.mean": stain,
        "nuclei.stain.sd": stain_sd,
        "nuclei.response.mean": height_mean,
        "nuclei.response.sd": height_sd,
        "nuclei.area": _mean(area),
        "nuclei.size": np.log1p(area.sum(axis=(1, 2)) / found),
        "nuclei.inside": inside,
        "nuclei.clustering": counts.var(axis=1) / (counts.mean(axis=1) + 0.1),
        "nuclei.empty": (counts == 0).mean(axis=1),
    }


def _uniform_bins() -> ndarray:
    """Bin of each 8-bit pattern: the number of bits set where at most two neighbours differ, 9 elsewhere."""
    bits = (np.arange(256)[:, None] >> np.arange(8)) & 1
    changes = (bits != np.roll(bits, 1, axis=1)).sum(axis=1)
    return np.where(changes <= 2, bits.sum(axis=1), 9)


_UNIFORM = _uniform_bins()
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def _patterns(scale: int, x: ndarray) -> Columns:
    # 1/64 of optical density is about one grey level: flat glass counts as flat instead of showing its noise.
    levels = np.rint(x * 64).astype(np.int16)
    _, height, width = levels.shape
    centre = levels[:, 1:-1, 1:-1]
    code = np.zeros(centre.shape, dtype=np.uint8)
    for bit, (dy, dx) in enumerate(_AROUND):
        neighbour = levels[:, 1 + dy : height - 1 + dy, 1 + dx : width - 1 + dx]
        code |= (neighbour >= centre).view(np.uint8) << np.uint8(bit)
    counts = np.stack([np.bincount(tile.ravel(), minlength=256) for tile in code])  # (b, 256)
    shares = np.stack([counts[:, i == _UNIFORM].sum(axis=1) for i in range(10)], axis=1) / code[0].size
    return {f"lbp.{scale}.{i}": shares[:, i] for i in range(10)}


def _contrasts(name: str, x: ndarray) -> Columns:
    columns: Columns = {}
    first = None
    for distance in (1, 2, 4, 8, 16):
        across = _mean(np.abs(x[:, :, distance:] - x[:, :, :-distance]))
        down = _mean(np.abs(x[:, distance:] - x[:, :-distance]))
        contrast = (across + down) / 2
        columns[f"contrast.{name}.{distance}"] = contrast if first is None else contrast / (first + 0.01)
        first = contrast if first is None else first
    return columns


def _orientation(x: ndarray) -> Columns:
    across = x[:, 1:-1, 2:] - x[:, 1:-1, :-2]
    down = x[:, 2:, 1:-1] - x[:, :-2, 1:-1]
    difference, product, total = across**2 - down**2, 2 * across * down, across**2 + down**2
    parts = [_blocks(plane, 16).mean(axis=2) for plane in (difference, product, total)]
    local = np.hypot(parts[0], parts[1]) / (parts[2] + 1e-4)
    whole = np.hypot(_mean(difference), _mean(product)) / (_mean(total) + 1e-4)
    return {"orientation.mean": local.mean(axis=1), "orientation.sd": local.std(axis=1), "orientation.global": whole}
