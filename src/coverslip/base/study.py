"""The settings of a study: one typed table that `embed`, `train` and `run` share.

Every field has a line under it that says what it does and its unit. Everything but `cohort` and `task` has a default
that is right for a first run. The resolved table is written into the run; running that file again repeats the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from coverslip.base.settings import Settings, override, parse, read_toml
from coverslip.base.units import PLAUSIBLE_MPP

FORMAT: Literal["coverslip.study/1"] = "coverslip.study/1"

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class CohortSettings(Settings):
    """Which slides, of which patients, with which columns."""

    table: str
    """CSV or parquet with the columns slide and patient; path where slides are opened; optional site, mpp, split,
    stain, preparation, targets and covariates."""
    clinical: str | None = None
    """A second table that is joined, one row a patient."""
    on: str = "patient"
    """The column of both tables that the clinical table is joined on."""
    filter: str | None = None
    """Rows to keep: comparisons of columns, such as "stage != 'IV' and age >= 18"."""
    classes: dict[str, list[str | int | float | bool]] | None = None
    """Groups of target values: {pos = ["A", "B"], neg = ["C"]}; values in no group are counted exclusions."""
    root: str = "."
    """Paths in the table are relative to this folder, and may not leave it."""
    allow_mixed: list[Literal["stain", "preparation"]] = []
    """Columns that may hold more than one value; mixing is refused otherwise."""
    covariates: list[str] = []
    """Clinical columns, such as ["age", "stage"]: a model of them alone, and one of tissue and them together, stand
    beside the tissue model. Numbers or text; empty cells are allowed."""


class SlideSettings(Settings):
    """How slides are opened."""

    mpp: Annotated[float, Field(ge=PLAUSIBLE_MPP[0], le=PLAUSIBLE_MPP[1])] | None = None
    """µm per pixel at level 0 for slides whose file and table row have none; never overrides either."""
    reader: str | None = None
    """Force one reader by name; by default each is asked in turn."""
    timeout_s: Positive = 120.0
    """Seconds after which the preflight of one slide is given up."""


class TissueSettings(Settings):
    """What counts as tissue."""

    method: str = "otsu"
    """A tissue method by name: `coverslip list tissue`."""
    mpp: Positive = 8.0
    """µm per pixel of the mask."""
    masks: str | None = None
    """A folder of masks that override the method: <slide>.geojson (level-0 px) or <slide>.png."""
    exclude: list[Literal["pen", "blur", "fold"]] = ["pen", "blur"]
    """Quality layers that are cut out of the tissue."""


class TileSettings(Settings):
    """How tissue is cut."""

    size_px: Count = 224
    """Side of a tile in pixels at `mpp`."""
    mpp: Positive = 0.5
    """µm per pixel of a tile."""
    stride_px: Count | None = None
    """Step in pixels at `mpp`; size_px (no overlap) where not given."""
    min_tissue: Fraction = 0.25
    """Least fraction of a tile that is tissue."""
    max_tiles: Count | None = None
    """Keep at most this many tiles of a slide, drawn evenly and always the same; all where not given."""
    on_bad: Literal["fail", "skip"] = "fail"
    """A damaged tile: fail (the slide fails), or skip (it is left out, recorded in the feature file and reported)."""
    exact: bool = True
    """false: JPEG may be decoded at a half or a quarter where tiles are coarser still: faster, and not bit for bit the
    pixels of exact reading. It is part of what features are made from."""


class EncoderSettings(Settings):
    """What turns a tile into a row of features."""

    name: str = "texture"
    """An encoder by name: `coverslip list encoders`; `timm:<arch>` for any timm architecture."""
    weights: str | None = None
    """A local weights file or a hub id, for encoders that need one."""
    batch: Literal["auto"] | Count = "auto"
    """Tiles that are encoded at once; auto: 32 on a CPU, and on a GPU what the first seconds show to be fastest."""
    threads: Literal["auto"] | Count = "auto"
    """Threads that read and decode tiles; auto: as many as cores, and more where they mostly wait for the storage."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 or fp16 where the device has it, fp32 on a CPU."""


class FeatureSettings(Settings):
    """Where features live."""

    store: str = "features"
    """The folder of feature files: written by embed, read by train. Existing files of other tools are read too."""


class TaskSettings(Settings):
    """What is predicted."""

    level: Literal["patient", "slide"] = "patient"
    """The unit of target, split and metrics."""
    bag: Literal["slide", "patient"] = "slide"
    """A bag is one slide, or all slides of a patient pooled."""
    kind: str = "classification"
    """A task by name: `coverslip list tasks`."""
    column: str | None = None
    """The target's column."""
    columns: list[str] = []
    """Multilabel: the columns of the labels, each 0, 1 or empty."""
    levels: list[str | int | float | bool] = []
    """Ordinal: the values of the column from lowest to highest; needed where they are no numbers."""
    time: str | None = None
    """Survival: the column of times, in any unit, each over 0."""
    event: str | None = None
    """Survival: the column of events (1) and censorings (0). Competing risks: 0, or the cause of the event."""
    times: list[Positive] = []
    """Survival: the times at which the survival curve is stored and judged; where not given, ten even steps up to the
    time that a tenth of the patients were followed for."""
    options: dict[str, int | float | bool | str] = {}
    """Options of the task, by the names in its docstring."""


class AggregatorSettings(Settings):
    """How the rows of a bag become one prediction."""

    name: str = "abmil"
    """A method by name: `coverslip list aggregators`."""
    options: dict[str, int | float | bool | str] = {}
    """Options of the method, by the names in its docstring."""


class SplitSettings(Settings):
    """Who is trained on, tuned on and tested on."""

    folds: Annotated[int, Field(ge=2)] = 5
    """Folds; each patient is tested once a repeat."""
    design: Literal["patients", "leave_site_out", "site_preserved", "temporal"] = "patients"
    """patients: dealt class by class. leave_site_out: each site (an institution) is tested by a model that has not seen
    it. site_preserved: sites stay whole and are spread over the folds. temporal: earlier patients train, later test."""
    least_site: Count = 10
    """leave_site_out: patients that a site needs to be a fold of its own; smaller sites are tested together."""
    time: str | None = None
    """temporal: the column of dates (YYYY-MM-DD) or numbers; a patient counts from their first slide."""
    cuts: list[float | str] = []
    """temporal: where testing begins, rising; several cuts make several folds, each up to the next cut. Where not
    given, the latest 1/folds of the patients are tested."""
    repeats: Count = 1
    """Times the folds are drawn anew."""
    seed: int = 0
    """Seed of the folds."""
    by: Literal["patient"] = "patient"
    """Patients stay together, always."""
    tune: Annotated[float, Field(gt=0, lt=0.5)] = 0.2
    """Fraction of a fold's training patients that stop the training early; never the test patients."""
    file: str | None = None
    """A folder or file of folds made elsewhere: one CSV a fold with the columns train, val, test, or a split.json."""
    allow_leaks: bool = False
    """Go on although a patient is on both sides of a fold; the report shows it in red."""


class FitSettings(Settings):
    """How a model is trained."""

    epochs: Count = 50
    """Passes over the training bags, at most."""
    patience: Count = 10
    """Epochs without a better tuning loss before training stops."""
    least_tuning: Annotated[int, Field(ge=0)] = 10
    """Patients of each class that a tuning set needs to choose the epoch. With fewer its loss is noise: then the tuning
    patients are trained on too, and training ends after `fixed_epochs`."""
    fixed_epochs: Count = 20
    """Passes over the training bags where no tuning set chooses the epoch."""
    lr: Positive | None = None
    """Peak learning rate of AdamW; where not given, from 1e-3 for few training bags to 2e-4 for many."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    """Decoupled weight decay."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on after the warm-up."""
    warmup: Fraction = 0.05
    """Fraction of all steps over which the learning rate rises from 0."""
    batch: Count | None = None
    """Bags in a step, packed; where not given, a sixteenth of the training bags, 1 to 8."""
    accumulate: Count = 1
    """Steps whose gradients are added up before the weights move."""
    clip: Positive | None = 5.0
    """Gradient norm above which gradients are scaled down, after the backward pass; none where not given."""
    max_rows: Count | None = None
    """Rows drawn from a bag in a training step; all where not given. Evaluation uses all."""
    standardise: bool = True
    """Mean and standard deviation of each dimension from the training rows, saved with the weights."""
    class_weights: Literal["balanced", "effective_number", "none"] = "balanced"
    """Weights of the classes in the loss, from the training patients: balanced makes up for the whole difference in
    size, effective_number for the part that `task.options.beta` says (Cui et al. 2019). With balanced sampling classes
    are drawn alike, and the loss of a step does not weigh them a second time; the tuning loss still does."""
    sampling: Literal["auto", "uniform", "balanced"] = "auto"
    """Which bags an epoch has: uniform, each once; balanced, as many of each class, those of a rare class several times
    (targets with classes only). auto: what the method asks for, mostly uniform."""
    augment: str = "none"
    """What is mixed into the bags of a training step, by name: `coverslip list augments`; none."""
    augment_options: dict[str, int | float | bool | str] = {}
    """Options of the augment, by the names in its docstring."""
    sam: Annotated[float, Field(ge=0)] = 0.0
    """Sharpness-aware minimisation: each step takes the gradient from where the loss is worst within this distance of
    the weights, such as 0.05; a step costs two. 0: not asked."""
    average: Literal["none", "ema", "soup"] = "none"
    """Weights that are tuned on and kept: none, those of the last step; ema, their moving average; soup, the plain mean
    of those after `average_from`."""
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """ema: what the average keeps of itself at each step; it reaches back over about 1 / (1 - decay) steps."""
    average_from: Fraction = 0.5
    """soup: the part of all steps after which weights go into the mean; no epoch before is kept."""
    seed: int = 0
    """Seed of weights, order and dropout."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    devices: Count = 1
    """Devices that train together (DDP)."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 where the device has it, fp32 on a CPU."""


class EvaluationSettings(Settings):
    """How numbers are made."""

    resamples: Annotated[int, Field(ge=100)] = 2000
    """Patient bootstrap resamples of the pooled intervals."""
    inner_folds: Literal[0] | Annotated[int, Field(ge=2)] = 3
    """Patient folds inside each fold's training patients; their out-of-fold predictions teach recalibration, operating
    points and tissue + covariates. A run trains 1 + inner_folds models a fold; 0: none of this."""
    recalibration: Literal["auto", "none", "temperature", "platt", "isotonic", "venn_abers"] = "auto"
    """How probabilities are corrected; auto: by the number of inner predictions, under 20 none, to 80 a temperature,
    then Platt's two numbers. isotonic and venn_abers need 200."""
    operating_point: Literal["youden", "sensitivity", "specificity"] = "youden"
    """The threshold that decides in `predict`: the most sensitivity + specificity, or `aim` of one of them."""
    aim: Annotated[float, Field(gt=0, le=1)] = 0.9
    """The sensitivity, or specificity, that the operating points of those names aim at."""
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """The share of patients that prediction sets may miss, and of like slides that may be flagged."""
    seed: int = 0
    """Seed of the resampling, of the inner folds and of the control."""
    control: Literal[0] | Annotated[int, Field(ge=20)] = 0
    """Times that everything is trained again with the outcomes dealt to other patients, to see that nothing is found
    where nothing is; `--control N` sets it. With under 20 no p is below .05. 0: not asked."""


class AuditSettings(Settings):
    """What is asked of a result at its end: leaks, shortcuts, subgroups, groups of errors."""

    enabled: bool = True
    """Ask at the end of `train` and `run`; without it the report says that nobody asked."""
    columns: list[str] | None = None
    """Covariates to look at subgroups of; where not given every column that makes groups and is by name no outcome."""
    cuts: dict[str, list[float]] = {}
    """Where numbers are cut into subgroups, by column, such as {age = [50, 70]}; at the median where not given."""
    resamples: Annotated[int, Field(ge=100)] = 500
    """Patient resamples of the intervals of what the site tells, and what tells the site."""
    pretraining: str | None = None
    """A text file with one patient, slide or barcode a line that the encoder has learnt from; the tested are looked
    up."""
    seed: int = 0
    """Seed of probes, clusters and shuffles."""


class TuneSettings(Settings):
    """Choosing among settings, inside each fold: the test patients of a fold have no part in it."""

    grid: dict[str, list[int | float | bool | str]] = {}
    """Settings to try, by name: {"fit.lr" = [1e-4, 3e-4], "aggregator.name" = ["abmil", "mean"]}; every combination is
    tried. Keys are of fit and aggregator."""
    folds: Annotated[int, Field(ge=2)] = 3
    """Inner folds, made of a fold's training patients."""
    seed: int = 0
    """Seed of the inner folds."""


class ComparedMethod(Settings):
    """One entry of a comparison: a method and how it is trained, where that is not as the study says."""

    name: str | None = None
    """A method by name: `coverslip list aggregators`; the entry's own name where not given."""
    options: dict[str, int | float | bool | str] = {}
    """Options of the method; where none are given, the study's if it is the study's own method."""
    fit: dict[str, Any] = {}
    """Settings of fit that are this method's own, such as {lr = 1e-4}."""
    grid: dict[str, list[int | float | bool | str]] = {}
    """Settings to choose among inside each fold, as tune.grid has them; tune.grid holds where not given."""


class CompareSettings(Settings):
    """Which methods `coverslip compare` trains on the same folds, and what is declared before any figure is seen."""

    methods: dict[str, ComparedMethod] = {}
    """Methods by the names that the report gives them; `--aggregators` chooses among them and adds others."""
    reference: str | None = None
    """The method that all others are tested against; abmil where it is among them, else the first."""
    margin: Annotated[float, Field(ge=0)] = 0.02
    """How far below the reference the mean of a method may lie that is recommended because it is cheaper."""


class HeatmapSettings(Settings):
    """Which maps are drawn."""

    slides: Literal["auto", "all", "none"] | Annotated[int, Field(ge=0)] = "auto"
    """auto: every slide up to 50, else 20 (right and wrong, each class); or a number, "all", "none"."""
    method: str = "auto"
    """An explainer by name: `coverslip list explainers`; auto: evidence where the method has it, else attention."""
    mpp: Positive | None = None
    """µm per pixel of the drawn map; where not given, the longer side has about 1,000 pixels."""
    tiles: Annotated[int, Field(ge=0)] = 6
    """Top and bottom tiles shown of each slide."""
    annotations: str | None = None
    """A folder of <slide>.geojson regions (level-0 px) that the maps of positive slides are scored against."""


class ReportSettings(Settings):
    """What the report shows."""

    title: str | None = None
    """Heading; the study's name where not given."""
    pseudonymise: bool = False
    """Replace slide and patient ids, paths, hosts and dates."""


class Study(Settings):
    """The whole study."""

    format: Literal["coverslip.study/1"] = FORMAT
    """Format of this file."""
    name: str = "study"
    """Name of the study, for people."""
    output: str = "run"
    """The run folder."""
    cohort: CohortSettings
    slides: SlideSettings = SlideSettings()
    tissue: TissueSettings = TissueSettings()
    tiles: TileSettings = TileSettings()
    encoder: EncoderSettings = EncoderSettings()
    features: FeatureSettings = FeatureSettings()
    task: TaskSettings
    aggregator: AggregatorSettings = AggregatorSettings()
    split: SplitSettings = SplitSettings()
    fit: FitSettings = FitSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    audit: AuditSettings = AuditSettings()
    tune: TuneSettings = TuneSettings()
    compare: CompareSettings = CompareSettings()
    heatmaps: HeatmapSettings = HeatmapSettings()
    report: ReportSettings = ReportSettings()


def load_study(path: Path, assignments: Sequence[str] = ()) -> Study:
    """The study of a TOML file with `--set` assignments over it; relative paths are made absolute against its folder.

    Raises:
        SettingsError: naming every wrong key.
    """
    path = Path(path)
    study = parse(Study, override(read_toml(path), assignments), source=str(path))
    return _absolute(study, path.resolve().parent)


def _absolute(study: Study, folder: Path) -> Study:
    def absolute(text: str | None) -> str | None:
        return None if text is None else str((folder / Path(text).expanduser()).absolute())

    cohort = study.cohort
    weights = study.encoder.weights
    # A weights setting is a hub id unless a file of that name lies there.
    if weights is not None and (folder / Path(weights).expanduser()).is_file():
        weights = absolute(weights)
    return study.model_copy(
        update={
            "output": absolute(study.output),
            "cohort": cohort.model_copy(
                update={
                    "table": absolute(cohort.table),
                    "clinical": absolute(cohort.clinical),
                    "root": absolute(cohort.root),
                }
            ),
            "tissue": study.tissue.model_copy(update={"masks": absolute(study.tissue.masks)}),
            "encoder": study.encoder.model_copy(update={"weights": weights}),
            "features": study.features.model_copy(update={"store": absolute(study.features.store)}),
            "split": study.split.model_copy(update={"file": absolute(study.split.file)}),
            "audit": study.audit.model_copy(update={"pretraining": absolute(study.audit.pretraining)}),
            "heatmaps": study.heatmaps.model_copy(update={"annotations": absolute(study.heatmaps.annotations)}),
        }
    )
