"""Floor 0: geometry, units, errors, registry, settings, fingerprints, files, random streams, progress."""
