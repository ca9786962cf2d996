"""``caopd score``: computes every metric of saved predictions, with intervals, without loading a model."""
