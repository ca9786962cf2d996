"""Runs that are killed and started again, and what is compared of them; see ``benchmarks/kills.py``."""
