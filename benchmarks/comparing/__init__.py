"""The parts of ``benchmarks/comparison.py``."""
