"""Graders: each looks at one answer and says how good it is."""
