"""Scripts that measure; `gpu` holds what `gpu_check.py` runs."""
