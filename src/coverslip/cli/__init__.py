"""Floor 11: the command line. `main` is the entry point; commands load what they need when they are called."""
