"""Which µm per pixel a slide has, and everything about it that does not fit together.

Nothing is guessed: a value comes from the file or from the user. A print resolution (72 or 300 dots per inch, which
would be 353 or 85 µm per pixel) is no scale of tissue; pixels that are not square have no single scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from coverslip.base.errors import Finding, SlideError
from coverslip.base.units import PLAUSIBLE_MPP, SQUARE_TOLERANCE, is_mpp, magnification
from coverslip.slide.reader import RESOLUTION_TAG, SlideInfo

GIVE_MPP = "Give µm per pixel in the cohort's 'mpp' column, with --set slides.mpp=..., or as mpp=... to Slide.open."

# A 40x objective gives about 0.25 µm per pixel, a 20x one 0.5. Scanners differ by a factor of up to 1.55 (0.325 at
# 20x); a factor of two is a wrong number.
_OBJECTIVE_UM = 10.0
_OBJECTIVE_FACTOR = 1.6
_LEVEL_TOLERANCE = 0.05


@dataclass(frozen=True)
class Scale:
    """`mpp` where there is one, and what was found on the way to it."""

    mpp: float | None
    findings: tuple[Finding, ...]


def checked_mpp(mpp: float, *, slide: str) -> float:
    """`mpp` itself, as a user gave it.

    Raises:
        SlideError: it is no number over 0, or none that a microscope has.
    """
    low, high = PLAUSIBLE_MPP
    if not is_mpp(mpp) or not low <= mpp <= high:
        raise SlideError(
            f"mpp = {mpp!r} was given.",
            slide=slide,
            fix=f"Accepted: µm per pixel from {low} to {high:g}; 20x is about 0.5, 40x about 0.25.",
            code="mpp_implausible",
        )
    return float(mpp)


def scale_of(info: SlideInfo, downsamples: tuple[float, ...], given: float | None) -> Scale:
    """The scale to use: `given` by the user (already checked) where there is one, else the file's."""
    stated, findings = _stated(info)
    if stated is not None:
        findings += _against_objective(stated, info.objective)
        findings += _against_levels(stated, info.level_mpp, downsamples)
    if given is not None:
        findings += _against_given(stated, given)
    elif not any(f.code == "mpp_conflict" and "square" in f.message for f in findings) and stated is None:
        findings.append(Finding("mpp_missing", "The file does not say how many µm a pixel is.", GIVE_MPP))
    return Scale(stated if given is None else given, tuple(findings))


def _stated(info: SlideInfo) -> tuple[float | None, list[Finding]]:
    """The file's own value where it can be used."""
    if info.mpp is None:
        return None, []
    x, y = info.mpp
    low, high = PLAUSIBLE_MPP
    bad = next((v for v in (x, y) if not is_mpp(v) or not low <= v <= high), None)
    if bad is not None:
        is_print = info.mpp_source == RESOLUTION_TAG and is_mpp(bad) and bad > high
        dots = f" ({25400 / bad:.0f} dots per inch: a print setting)" if is_print else ""
        text = f"{info.mpp_source or 'The file'} says {bad:.6g} µm per pixel{dots}; accepted is {low} to {high:g}."
        return None, [Finding("mpp_implausible", text[0].upper() + text[1:], GIVE_MPP)]
    if abs(x - y) > SQUARE_TOLERANCE * max(x, y):
        text = f"Pixels are not square: {x:.6g} µm wide and {y:.6g} µm high."
        return None, [Finding("mpp_conflict", text, f"Resample the slide to square pixels. Or: {GIVE_MPP}")]
    return (x if x == y else (x + y) / 2), []


def _against_objective(mpp: float, objective: float | None) -> list[Finding]:
    if objective is None or objective <= 0:
        return []
    expected = _OBJECTIVE_UM / objective
    if 1 / _OBJECTIVE_FACTOR <= mpp / expected <= _OBJECTIVE_FACTOR:
        return []
    return [
        Finding(
            "mpp_conflict",
            f"The file says {mpp:.4g} µm per pixel (about {magnification(mpp)}) and an objective of {objective:g}x "
            f"(about {expected:.4g} µm).",
            f"One of them is wrong; {mpp:.4g} is used. {GIVE_MPP}",
        )
    ]


def _against_levels(mpp: float, level_mpp: tuple[float | None, ...], downsamples: tuple[float, ...]) -> list[Finding]:
    for level, (stated, downsample) in enumerate(zip(level_mpp, downsamples)):
        if level == 0 or stated is None or not is_mpp(stated):
            continue
        if abs(stated / (mpp * downsample) - 1) > _LEVEL_TOLERANCE:
            return [
                Finding(
                    "mpp_conflict",
                    f"Level {level} says {stated:.4g} µm per pixel, but level 0 says {mpp:.4g} and is "
                    f"{downsample:.4g} times as large, which makes {mpp * downsample:.4g}.",
                    f"One of them is wrong; {mpp:.4g} at level 0 is used. {GIVE_MPP}",
                )
            ]
    return []


def _against_given(stated: float | None, given: float) -> list[Finding]:
    if stated is None or abs(stated - given) <= SQUARE_TOLERANCE * max(stated, given):
        return []
    return [
        Finding(
            "mpp_conflict",
            f"The file says {stated:.6g} µm per pixel, {given:.6g} was given; {given:.6g} is used.",
            "Leave the given value out if the file is right.",
        )
    ]
