"""Floor 2: the table of slides and patients, targets, and patient-level folds that check themselves."""

from coverslip.cohort.cohort import Cohort, Exclusion, load_cohort
from coverslip.cohort.curve_times import learnt_times, with_common_times
from coverslip.cohort.folds import make_split
from coverslip.cohort.foreign import column_split, read_split, resolve_split
from coverslip.cohort.inner import inner_folds
from coverslip.cohort.site_folds import leave_site_out, site_preserved
from coverslip.cohort.split import Fold, Leak, Split, check_split, write_split
from coverslip.cohort.table import read_table
from coverslip.cohort.targets import Targets, make_targets
from coverslip.cohort.temporal import temporal_split

__all__ = [
    "Cohort",
    "Exclusion",
    "Fold",
    "Leak",
    "Split",
    "Targets",
    "check_split",
    "column_split",
    "inner_folds",
    "learnt_times",
    "leave_site_out",
    "load_cohort",
    "make_split",
    "make_targets",
    "read_split",
    "read_table",
    "resolve_split",
    "site_preserved",
    "temporal_split",
    "with_common_times",
    "write_split",
]
