"""The commands that read finished runs and predictions: score, report, route and export."""
