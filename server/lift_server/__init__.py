"""The OpenAI-compatible front end: documents in, answers out. It never imports torch."""
