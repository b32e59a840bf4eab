"""The engine: the launcher that starts stock vLLM with our flags, and the plug-in that vLLM then loads.

An adapter id comes in over HTTP, the adapter is fetched, verified and hot-loaded; vLLM does the rest.
"""
