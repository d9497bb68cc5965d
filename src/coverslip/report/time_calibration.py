"""Whether stated chances of the event by fixed times come true, in a table and in sentences that claim what the limits
allow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coverslip.report.contents import RunContents, dig
from coverslip.report.wording import has_interval, is_number, listing, number, plural, span


def blocks(run: RunContents) -> list[Mapping[str, Any]]:
    """What evaluation.json holds of the calibration at each time."""
    found = dig(run.evaluation, "calibration_at") or []
    return [one for one in found if isinstance(one, Mapping) and one.get("bins")]


def rows(run: RunContents) -> list[dict[str, Any]]:
    """One line a time and group, all together first."""
    table = []
    for block in blocks(run):
        overall = block.get("overall")
        groups = [("all", overall)] if isinstance(overall, Mapping) else []
        groups += [(f"group {place}", one) for place, one in enumerate(block["bins"], start=1)]
        table += [{**one, "time": f"{block['time']:g}", "group": name, "off": _off(one)} for name, one in groups]
    return table


def summary(run: RunContents) -> list[str]:
    """A sentence a time: what was stated and observed of all, and in how many groups the limits exclude what was
    stated."""
    return [_sentence(block) for block in blocks(run)]


def verdict(run: RunContents) -> str:
    """The headline of the summary."""
    if is_off(run):
        return "The stated chances of the event do not come true as stated."
    if not any(has_interval(one) for block in blocks(run) for one in (block.get("overall"), *block["bins"])):
        return "Whether the stated chances of the event come true cannot be judged."
    return "Nothing speaks against the stated chances of the event, within wide limits where groups are small."


def is_off(run: RunContents) -> bool:
    """True where, at some time, the limits exclude what was stated of all, or of half of the groups or more."""
    for block in blocks(run):
        judged = [one for one in block["bins"] if has_interval(one)]
        overall = block.get("overall")
        if isinstance(overall, Mapping) and _off(overall):
            return True
        if judged and 2 * sum(map(_off, judged)) >= len(judged):
            return True
    return False


def _sentence(block: Mapping[str, Any]) -> str:
    overall, by = block.get("overall"), f"By {block['time']:g}"
    said = []
    if isinstance(overall, Mapping):
        stated = number(overall.get("stated"), 3)
        if not is_number(overall.get("observed")):
            reason = overall.get("reason") or "what came is not known"
            said.append(f"the stated chance of the event was {stated} on average; {reason}")
        else:
            observed = f"{number(overall['observed'], 3)} had it ({span(overall, 3)})"
            verdict = ": stated " + ("too low" if _low(overall) else "too high") if _off(overall) else ""
            said.append(f"the stated chance of the event was {stated} on average, {observed}{verdict}")
    judged = [one for one in block["bins"] if has_interval(one)]
    off = [one for one in judged if _off(one)]
    ways = [
        f"{n} too {way}" for way, n in (("low", sum(map(_low, off))), ("high", len(off) - sum(map(_low, off)))) if n
    ]
    if off:
        said.append(
            f"the limits exclude what was stated in {len(off)} of {plural(len(judged), 'group')} ({listing(ways)})"
        )
    elif judged:
        said.append(f"what was stated lies within the limits of {_all(len(judged))}")
    silent = len(block["bins"]) - len(judged)
    if silent:
        said.append(f"{plural(silent, 'group')} cannot be judged")
    return f"{by}, {'; '.join(said)}."


def _all(n: int) -> str:
    return "the one group" if n == 1 else f"all {n} groups"


def _off(one: Mapping[str, Any]) -> bool:
    return has_interval(one) and is_number(one.get("stated")) and not one["low"] <= one["stated"] <= one["high"]


def _low(one: Mapping[str, Any]) -> bool:
    return bool(one["stated"] < one["observed"])
