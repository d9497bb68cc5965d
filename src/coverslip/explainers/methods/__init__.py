"""One way of explaining a file; a file with ENTRIES is found by being here."""
