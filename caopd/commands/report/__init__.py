"""``caopd report``: runs compared in tables, figures and one page."""
