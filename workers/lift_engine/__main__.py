"""`python -m lift_engine --index 0` becomes one vLLM server."""

from lift_engine.launch import main

if __name__ == "__main__":
    main()
