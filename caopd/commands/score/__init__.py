"""``caopd score``: every metric of saved predictions, with intervals. No model, no Lightning, no transformers."""
