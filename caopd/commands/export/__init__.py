"""``caopd export``: a checkpoint as a Hugging Face directory with a model card."""
