"""The steps of a rollout round, one file for each: prompts, completions, groups, parity, samples, batches, buffer."""
