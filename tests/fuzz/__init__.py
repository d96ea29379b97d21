"""Random bytes against the daemon's ears: `python -m tests.fuzz --inputs 1000000 --seed 1`."""
