"""The steps of a round, a file each: prompts, completions, groups, parity, buffer, samples, batches."""
