"""The commands that read finished runs and predictions: score, report, route and export; and plan, before a run."""
