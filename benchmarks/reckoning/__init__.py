"""Parts of ``benchmarks/arithmetic.py``."""
