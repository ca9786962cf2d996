"""How texts of models are read: what is thought, what is quoted, elements in tags, lines and values of confidences."""
