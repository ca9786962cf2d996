"""``caopd plan``: what a run will need, from its config and its models' configs, without loading a model."""
