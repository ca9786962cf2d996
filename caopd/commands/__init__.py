"""What reads finished runs and predictions: score, report, route and export."""
