"""Settings become vLLM's command line and environment."""

import itertools
import json
from typing import Any

import pytest

from lift_config.settings import Settings
from lift_engine.capacity import Capacity
from lift_engine.launch import engine_command, uses_cuda


def command(index: int = 0, *, cuda: bool = False, **values: Any) -> tuple[dict[str, str], list[str], dict[str, str]]:
    """Options with values, all of argv, environment."""
    settings = Settings(redis_url="redis://x", **values)
    argv, environment = engine_command(settings, index, cuda=cuda, capacity=Capacity(3, 9))
    options = {name: value for name, value in itertools.pairwise(argv) if name.startswith("--")}
    return options, argv, environment


def test_cpu() -> None:
    options, argv, environment = command(base_model="/models/tiny", engine={"cpu_kv_cache_gib": 3})
    assert options["--block-size"] == "32"
    assert options["--max-model-len"] == "2048"
    assert options["--max-num-batched-tokens"] == "512"
    assert "--enforce-eager" in argv
    assert "--lora-dtype" not in argv
    assert environment["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert (environment["VLLM_CPU_OMP_THREADS_BIND"], environment["GOMP_SPINCOUNT"]) == ("nobind", "2000")
    assert "CUDA_VISIBLE_DEVICES" not in environment


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cpu_computes_in_what_the_trainer_does(dtype: Any) -> None:
    assert command(cpu_dtype=dtype)[0]["--dtype"] == dtype
    assert command(cpu_dtype=dtype, cuda=True)[0]["--dtype"] == "bfloat16"


def test_cuda() -> None:
    options, argv, environment = command(cuda=True, base_model="org/model", engine={"gpu_memory_fraction": 0.5})
    assert options["--dtype"] == options["--lora-dtype"] == "bfloat16"
    assert options["--gpu-memory-utilization"] == "0.5"
    assert not {"--enforce-eager", "--block-size"} & set(argv)
    assert "--max-model-len" not in argv  # the model's own
    assert not {name for name in environment if name.startswith("VLLM_CPU")}
    assert "CUDA_VISIBLE_DEVICES" not in environment  # one engine takes what there is


@pytest.mark.parametrize("cuda", [False, True])
def test_stated_max_model_len(cuda: bool) -> None:
    assert command(cuda=cuda, engine={"max_model_len": 4096})[0]["--max-model-len"] == "4096"


def test_each_engine_has_its_port_and_gpu() -> None:
    options, _, environment = command(1, cuda=True, engines=2, engine={"port": 8100})
    assert options["--port"] == "8101"
    assert environment["CUDA_VISIBLE_DEVICES"] == "1"
    assert environment["LIFT_ENGINE_INDEX"] == "1"


def test_hub_id_has_a_revision_and_may_go_online() -> None:
    options, _, environment = command(base_model="org/model", base_revision="abc123")
    assert options["--model"] == options["--served-model-name"] == "org/model"
    assert options["--revision"] == "abc123"
    assert "HF_HUB_OFFLINE" not in environment


def test_folder_is_served_by_its_name_and_offline() -> None:
    options, argv, environment = command(base_model="/models/tiny")
    assert options["--model"] == "/models/tiny"
    assert options["--served-model-name"] == "tiny"
    assert "--revision" not in argv
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_adapters_need_the_plug_in_and_its_limits() -> None:
    options, argv, environment = command(engine={"max_lora_rank": 64})
    assert "--enable-lora" in argv
    assert (options["--max-loras"], options["--max-cpu-loras"], options["--max-lora-rank"]) == ("3", "9", "64")
    assert environment["VLLM_PLUGINS"] == "lift_resolver,lift_endpoints"
    assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"


def test_json_and_forced_calls_have_no_white_space_to_run_on_in() -> None:
    options, _, environment = command()
    assert json.loads(options["--structured-outputs-config"])["disable_any_whitespace"] is True
    assert environment["VLLM_ENFORCE_STRICT_TOOL_CALLING"] == "0"


def test_the_api_key_stays_out_of_argv() -> None:
    _, argv, environment = command(engine={"api_key": "sekret"})
    assert environment["VLLM_API_KEY"] == "sekret"
    assert "sekret" not in " ".join(argv)
    assert "VLLM_API_KEY" not in command(engine={"api_key": ""})[2]  # an empty one would be a key


def test_traces_only_where_they_are_wanted() -> None:
    options, _, environment = command(otlp_endpoint="http://collector:4318/v1/traces")
    assert options["--otlp-traces-endpoint"] == "http://collector:4318/v1/traces"
    assert environment["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    assert environment["OTEL_TRACES_SAMPLER"] == "parentbased_always_off"
    options, _, environment = command()
    assert "--otlp-traces-endpoint" not in options
    assert not {name for name in environment if name.startswith("OTEL")}


def test_tools_need_a_parser() -> None:
    options, argv, _ = command()
    assert options["--tool-call-parser"] == "hermes"
    assert "--enable-auto-tool-choice" in argv
    argv = command(engine={"tool_call_parser": ""})[1]
    assert not {"--enable-auto-tool-choice", "--tool-call-parser"} & set(argv)


def test_extra_args_come_last() -> None:
    argv = command(engine={"extra_args": ["--dtype", "float16"]})[1]
    assert argv[-2:] == ["--dtype", "float16"]


@pytest.mark.parametrize(("device", "expected"), [("cpu", False), ("cuda", True)])
def test_a_stated_device_is_taken(device: Any, expected: bool) -> None:
    assert uses_cuda(Settings(device=device)) is expected
