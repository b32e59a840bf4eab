from pathlib import Path

import pytest

from lift_config.machine import cpu_dtype
from lift_config.settings import Settings


@pytest.mark.parametrize(
    ("flags", "dtype"),
    [
        ("fpu avx2 avx512f avx512_bf16", "bfloat16"),
        ("fpu amx_bf16 amx_tile", "bfloat16"),
        ("fpu avx2 avx512f", "float32"),
    ],
)
def test_bfloat16_where_the_processor_is_fast_at_it(tmp_path: Path, flags: str, dtype: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"model name\t: Some processor\nflags\t\t: {flags}\nbogomips\t: 1\n")
    assert cpu_dtype(Settings(), cpuinfo) == dtype


def test_the_setting_wins(tmp_path: Path) -> None:
    settings = Settings(cpu_dtype="float32")
    assert cpu_dtype(settings, tmp_path / "not read") == "float32"
