"""Floor 4: feature files, tables and run folders on disk, and other tools' layouts of them. No torch."""

from coverslip.store.annotations import Annotations, Region, read_annotations
from coverslip.store.convert import Converted, convert_store, to_clam, to_coverslip, to_npz, to_stamp, to_trident
from coverslip.store.environment import describe_environment
from coverslip.store.feature_store import FeatureStore, check_one_kind
from coverslip.store.features import Features, Reader, Skipped, check_rows, read_features
from coverslip.store.identity import FORMAT, EncoderIdentity, FeatureIdentity, coords_digest
from coverslip.store.run import Run, RunFolder, save_settings
from coverslip.store.tables import OutcomeLog, Status, read_outcomes, read_predictions, write_table
from coverslip.store.writer import FeatureWriter

__all__ = [
    "FORMAT",
    "Annotations",
    "Converted",
    "EncoderIdentity",
    "FeatureIdentity",
    "FeatureStore",
    "FeatureWriter",
    "Features",
    "OutcomeLog",
    "Reader",
    "Region",
    "Run",
    "RunFolder",
    "Skipped",
    "Status",
    "check_one_kind",
    "check_rows",
    "convert_store",
    "coords_digest",
    "describe_environment",
    "read_annotations",
    "read_features",
    "read_outcomes",
    "read_predictions",
    "save_settings",
    "to_clam",
    "to_coverslip",
    "to_npz",
    "to_stamp",
    "to_trident",
    "write_table",
]
