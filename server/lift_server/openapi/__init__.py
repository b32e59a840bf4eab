"""The OpenAPI document: what FastAPI cannot see in the routes (bodies read raw, streams, errors), written down here."""
