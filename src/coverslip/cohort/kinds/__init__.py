"""One file a kind of target: a function from cohort and task settings to `Targets`, named in the file's ENTRIES."""
