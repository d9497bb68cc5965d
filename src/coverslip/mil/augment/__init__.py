"""Ways to mix training bags, one a file."""
