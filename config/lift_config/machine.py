"""How engine and trainer share a processor: an adapter is trained in what it is served in, and neither keeps a core.

In: settings and /proc/cpuinfo. Out: the name of a dtype; how long an OpenMP thread waits before it sleeps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lift_config.settings import Settings

# Processors without these compute bfloat16 matrices some two hundred times slower than float32 (measured on AVX2),
# those with them four times faster (measured on a Zen 5).
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
# GOMP_SPINCOUNT: rounds, some microseconds. Threads that spin for long take the cores from the other process; those
# that sleep at once pay for a wake-up at each of a step's thousands of operations. Another value in the environment
# of scripts/bench_train.py wins, so that it can compare.
SPIN_COUNT = "2000"


def cpu_dtype(settings: Settings, cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """`float32` or `bfloat16`: what computes the base model where there is no GPU."""
    if settings.cpu_dtype != "auto":
        return settings.cpu_dtype
    flags = {word for line in cpuinfo.read_text().splitlines() if line.startswith("flags") for word in line.split()}
    return "bfloat16" if flags & BFLOAT16_FLAGS else "float32"
