"""Reads what models write: thoughts, quotations, elements in tags, and the lines and values of confidences."""
