"""Runs of a stated size, for what a training step costs and what ``caopd plan`` says of it; see ``curves.py``."""
