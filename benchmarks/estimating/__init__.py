"""The parts of ``benchmarks/estimators.py``."""
