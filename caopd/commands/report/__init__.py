"""``caopd report``: compares runs in tables, figures and one page."""
