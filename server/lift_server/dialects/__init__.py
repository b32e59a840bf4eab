"""How OpenAI's three ways to ask differ: one module each, all of the shape that dialect.py describes."""
