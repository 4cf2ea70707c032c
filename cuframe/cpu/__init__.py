"""The CPU backend: NumPy arrays and the reference for every operation."""
