"""Floor 10: a verb a file, from settings to files on disk. `check` and `report` import no torch."""
