"""Floor 4: feature files, tables and run folders on disk, and other tools' layouts of them. No torch."""

from coverslip.store.feature_store import FeatureStore, check_one_kind
from coverslip.store.features import Features, Reader, Skipped, check_rows, read_features
from coverslip.store.identity import FORMAT, EncoderIdentity, FeatureIdentity, coords_digest
from coverslip.store.writer import FeatureWriter

__all__ = [
    "FORMAT",
    "EncoderIdentity",
    "FeatureIdentity",
    "FeatureStore",
    "FeatureWriter",
    "Features",
    "Reader",
    "Skipped",
    "check_one_kind",
    "check_rows",
    "coords_digest",
    "read_features",
]
