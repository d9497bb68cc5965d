"""Encoders, one family a file. Each file's ENTRIES names functions (name) -> Blueprint."""
