"""What the processor computes fastest, for engine and trainer alike: an adapter is trained in what it is served in.

In: settings and /proc/cpuinfo. Out: the name of a dtype.
"""

from __future__ import annotations

from pathlib import Path

from lift_config.settings import Settings

# Processors without these compute bfloat16 matrices some two hundred times slower than float32 (measured on AVX2),
# those with them four times faster (measured on a Zen 5).
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})


def cpu_dtype(settings: Settings, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """`float32` or `bfloat16`: what computes the base model where there is no GPU."""
    if settings.cpu_dtype != "auto":
        return settings.cpu_dtype
    flags = {word for line in cpuinfo.read_text().splitlines() if line.startswith("flags") for word in line.split()}
    return "bfloat16" if flags & BFLOAT16_FLAGS else "float32"
