"""One MIL method a file; a file with ENTRIES is found by being here."""
