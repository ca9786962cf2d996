"""What only a GPU can show; see ``benchmarks/gpu/run``."""
