"""Trainers side by side on the same works; see ``benchmarks/peers.py``."""
