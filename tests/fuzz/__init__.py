"""A fuzzer of everything that opens files of others: slides through `check` and `Slide.tiles`, feature files."""
