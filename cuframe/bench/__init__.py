"""The benchmark harness behind `cuframe bench`: cases, timing, statistics, results and their tables.

`families` holds what is measured, one definition for cuframe and PyTorch, CPU and GPU alike; `clocks` tells how times
are taken.
"""
