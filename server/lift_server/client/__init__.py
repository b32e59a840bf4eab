"""The terminal client: lift-serve upload, ask, chat, docs, status, export, rm. It speaks to a server's address only."""
