"""Which methods a comparison is of: what the user named, checked before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coverslip.base.errors import SettingsError
from coverslip.base.registry import AGGREGATORS, suggest
from coverslip.base.settings import override, parse
from coverslip.base.study import AggregatorSettings, ComparedMethod, CompareSettings, FitSettings, Study
from coverslip.mil.build import check_options
from coverslip.recipes.tuning import candidates
from coverslip.store import RunFolder

RUNS = "runs"
_UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]")


@dataclass(frozen=True)
class Compared:
    """One method of a comparison: its name there, what was asked, and the study that trains it alone, in a folder of
    its own."""

    label: str
    entry: ComparedMethod
    study: Study

    @property
    def run(self) -> RunFolder:
        return RunFolder(Path(self.study.output))


def compared_methods(
    study: Study, folder: Path, asked: str | None = None, reference: str | None = None
) -> tuple[list[Compared], str]:
    """The methods in the order they were named, and the reference among them; runs lie below `folder`.

    `asked` is a list with commas. An item is the name of an entry of compare.methods, or a method, with options behind
    colons: mhim:host=dsmil:fit.lr=1e-4. Without it all entries of compare.methods are compared.

    Raises:
        SettingsError: no such method or option, one method alone, one of them twice, or the reference is none of them.
    """
    entries = study.compare.methods
    labels = list(entries) if asked is None else [item.strip() for item in asked.split(",")]
    if not labels:
        raise SettingsError(
            "Which methods are to be compared is not said.",
            fix="Name them, as in --aggregators mean,abmil, or give the study a section compare.methods.",
        )
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise SettingsError(
            f"{twice[0]!r} is named twice.", fix="Name each method once; with other options it is another."
        )
    if len(labels) == 1:
        raise SettingsError(
            f"{labels[0]!r} alone is nothing to compare.",
            fix="Name two methods or more; `coverslip train` trains one, beside the linear baseline.",
        )
    methods = [_compared(study, label, entries.get(label) or _entry(label, list(entries)), folder) for label in labels]
    places = [method.run.folder.name.lower() for method in methods]
    for method, place in zip(methods, places):
        if places.count(place) > 1:
            raise SettingsError(
                f"{method.label!r} and another method would lie in one folder.", fix="Rename one of them."
            )
    return methods, _reference(methods, reference or study.compare.reference)


def _entry(text: str, known: Sequence[str]) -> ComparedMethod:
    """The entry that stands on the command line: a method and options behind colons."""
    name, *options = text.split(":")
    if name not in AGGREGATORS.entries:
        raise SettingsError(
            f"--aggregators: there is no method {name!r}.", fix=suggest(name, sorted({*known, *AGGREGATORS.names()}))
        )
    wrong = [option for option in options if "=" not in option]
    if wrong:
        raise SettingsError(
            f"--aggregators: {wrong[0]!r} in {text!r} is no option.", fix=f"Options are {name}:key=value:key=value."
        )
    given = [option if option.startswith("fit.") else f"options.{option}" for option in options]
    return parse(ComparedMethod, {"name": name, **override({}, given)}, source=f"--aggregators {text}")


def _compared(study: Study, label: str, entry: ComparedMethod, folder: Path) -> Compared:
    name, where = entry.name or label, f"compare.methods.{label}"
    if name not in AGGREGATORS.entries:
        raise SettingsError(f"{where}: there is no method {name!r}.", fix=suggest(name, AGGREGATORS.names()))
    options = entry.options or (study.aggregator.options if name == study.aggregator.name else {})
    check_options(name, options)
    grid = entry.grid or study.tune.grid
    if not entry.grid and any(key.split(".")[0] == "aggregator" for key in grid):
        raise SettingsError(
            "tune.grid chooses among methods or their options, and would do so for every method compared.",
            fix=f"Give it to the method that it is for: {where}.grid; tune.grid may hold settings of fit.",
        )
    own = parse(FitSettings, {**study.fit.model_dump(), **entry.fit}, source=f"{where}.fit")
    # Inner folds, audits and controls are for a model that is chosen; the figures compared need none of them.
    evaluation = study.evaluation.model_copy(update={"inner_folds": 0, "control": 0})
    made = study.model_copy(
        update={
            "name": f"{study.name}: {label}",
            "output": str(folder / RUNS / _UNSAFE.sub("_", label).lstrip(".")),
            "aggregator": AggregatorSettings(name=name, options=options),
            "fit": own,
            "tune": study.tune.model_copy(update={"grid": grid}),
            "evaluation": evaluation,
            "compare": CompareSettings(),
        }
    )
    candidates(made)
    return Compared(label, entry.model_copy(update={"name": name, "options": options}), made)


def _reference(methods: Sequence[Compared], asked: str | None) -> str:
    labels = [method.label for method in methods]
    if asked is None:
        gated = [method.label for method in methods if method.study.aggregator.name == "abmil"]
        return "abmil" if "abmil" in labels else (gated or labels)[0]
    if asked not in labels:
        raise SettingsError(f"The reference {asked!r} is not among the methods compared.", fix=suggest(asked, labels))
    return asked
