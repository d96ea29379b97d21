"""Whether what clients saw could have happened one thing at a time."""
