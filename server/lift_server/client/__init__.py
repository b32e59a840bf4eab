"""The client: lift-serve upload, ask, chat, docs, status, export, rm, mcp. Over HTTP only."""
