"""Floor 6: parts of networks that know no pathology."""
