"""The client: lift-serve upload, ask, chat, bench, docs, status, export, rm, mcp. Over HTTP only."""
