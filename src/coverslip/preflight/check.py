"""The check of one slide: open it, decode a sample, read what it says of itself, look at what it shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from coverslip.base.errors import Finding, SlideError
from coverslip.base.fingerprint import path_digest
from coverslip.preflight.content import content, overview
from coverslip.preflight.decoding import cut_short, undecodable
from coverslip.preflight.likeness import fingerprint
from coverslip.preflight.nuclei import mpp_against_nuclei
from coverslip.preflight.privacy import label_images
from coverslip.preflight.report import SlideReport
from coverslip.preflight.workers import serve
from coverslip.slide import Slide, slide_id


def check_slide(
    path: Path | str,
    *,
    id: str | None = None,
    mpp: float | None = None,
    fallback_mpp: float | None = None,
    reader: str | None = None,
) -> SlideReport:
    """What there is to say about one slide; never raises for what is wrong with the file.

    `id` is the slide's name where a table gives it one other than the file's. `mpp` is what the user says of this
    slide, `fallback_mpp` what holds where neither user nor file says anything; one that no microscope has becomes a
    finding. `reader` forces a reader by name. This opens the file in this very process: a file that crashes native
    code takes it along, so for files that nobody has seen use `check_cohort`.

    Raises:
        SettingsError: there is no reader of that name.
    """
    path = Path(path)
    report = SlideReport(slide=id or slide_id(path), path=str(path), digest=_digest(path))
    try:
        slide, findings = _opened(path, id, mpp, fallback_mpp, reader)
    except SlideError as error:
        return report.with_reason(error.finding())
    with slide:
        reasons = [*findings, *slide.findings]
        _add(reasons, undecodable(slide))
        if slide.reader == "openslide":
            _add(reasons, cut_short(path))
        thumbnail = None
        try:
            image, overview_mpp = overview(slide)
        except SlideError as error:
            _add(reasons, [error.finding()])
        else:
            thumbnail = fingerprint(image)
            shown = content(image, overview_mpp)
            _add(reasons, shown or _scale(slide, image, overview_mpp))
        _add(reasons, label_images(slide.associated))
        return SlideReport(
            slide=slide.id,
            path=str(path),
            reasons=tuple(reasons),
            vendor=slide.vendor,
            reader=slide.reader,
            size=slide.size,
            mpp=slide.mpp,
            levels=tuple(level.downsample for level in slide.levels),
            digest=report.digest,
            thumbnail=thumbnail,
        )


def main() -> None:
    """What a worker process runs: one request a line, one report a line."""
    serve(_answer)


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    return check_slide(
        request["path"],
        id=request["id"],
        mpp=request["mpp"],
        fallback_mpp=request["fallback_mpp"],
        reader=request["reader"],
    ).to_json()


def _opened(
    path: Path, id: str | None, mpp: float | None, fallback_mpp: float | None, reader: str | None
) -> tuple[Slide, list[Finding]]:
    """The open slide, and a finding where a scale that was given is none; the slide is then opened without it."""
    findings = []
    try:
        slide = Slide.open(path, mpp=mpp, reader=reader, id=id)
    except SlideError as error:
        if mpp is None or error.code != "mpp_implausible":
            raise
        findings.append(error.finding())
        slide = Slide.open(path, reader=reader, id=id)
    if slide.mpp is not None or fallback_mpp is None or mpp is not None:
        return slide, findings
    slide.close()
    again, more = _opened(path, id, fallback_mpp, None, reader)
    return again, [*findings, *more]


def _scale(slide: Slide, image: UInt8[ndarray, "h w 3"], image_mpp: float | None) -> list[Finding]:
    try:
        return mpp_against_nuclei(slide, image, image_mpp)
    except SlideError:
        return []  # a field that does not decode: the sample of every level tells of damage


def _add(reasons: list[Finding], found: list[Finding]) -> None:
    """Adds what is new: a lost tile that opening has told already is not told again for every look at it."""
    told = {reason.code for reason in reasons}
    reasons.extend(finding for finding in found if finding.code not in told)


def _digest(path: Path) -> str | None:
    try:
        return path_digest(path)
    except OSError:
        return None  # opening it tells why it cannot be read
