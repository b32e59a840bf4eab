"""The front end must start where torch is not installed."""

import os
import subprocess
import sys

BLOCKED = """
import sys
for name in ("torch", "transformers", "peft", "safetensors", "vllm"):
    sys.modules[name] = None
import lift_server.app, lift_server.__main__
"""


def test_the_server_imports_without_torch() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
