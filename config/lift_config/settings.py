"""The operator's settings, read once per process from `config/lift.yaml` and the environment.

In: the YAML file named by LIFT_CONFIG (or none), `LIFT_*` variables (nested with two underscores, as in
LIFT_ENGINE__MAX_LORAS; they win over the file), REDIS_URL. Out: a frozen Settings tree. Unknown keys and
values that contradict each other are refused with the field's name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from lift_config.logs import LogFormat
from lift_config.recipe import load_recipes

ADDRESS = re.compile(r"https?://(?:\[[0-9a-fA-F:.]+\]|[^\s/:@?#\[\]]+)(?::(?P<port>\d{1,5}))?/?")
LAST_PORT = 65535
EVERY_ADDRESS = ("0.0.0.0", "::")
BUNDLED_MODEL = "smollm2-135m-instruct"
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM allows
# LIFT_… variables of other readers: where the file is, which engine a plug-in is in, what scripts/test runs,
# the key that `lift-serve ask` and its like show.
NOT_SETTINGS = frozenset({"config", "engine_index", "test_quick", "api_key"})


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ServerSettings(_Section):
    """The OpenAI-compatible front end."""

    host: str = Field("127.0.0.1", description="to listen on; another than loopback opens it: make API keys first")
    port: int = Field(8000, ge=1, le=65535, description="to listen on")
    max_upload_bytes: int = Field(16 * 2**20, gt=0, description="a larger document is refused (413)")
    max_request_bytes: int = Field(8 * 2**20, gt=0, description="a question's JSON body")
    min_free_bytes: int = Field(2**30, ge=0, description="left free where the store is a folder; else no uploads")
    max_wait_s: float = Field(300, gt=0, description="a question's default patience for its adapter")


class EngineSettings(_Section):
    """vLLM. `urls` names engines that run elsewhere; empty means the ones started here, or the registered ones."""

    host: str = Field("127.0.0.1", description="the engines started here listen on it")
    port: int = Field(8100, ge=1, le=65535, description="first engine's; the next ones count up")
    urls: tuple[str, ...] = Field((), description="engines that run elsewhere; empty: those started here")
    registered: bool = Field(False, description="engines say in Redis where they are; all look there, not in urls")
    address: str = Field(
        "", description="http://host:port of this machine's first engine, as others reach it; empty: host and port"
    )
    api_key: str = Field("", description="shared secret of server, worker and engine; `up` makes one")
    max_model_len: int = Field(0, ge=0, description="0: 2048 on a CPU, the model's own on a GPU")
    max_loras: int = Field(0, ge=0, description="adapters in the engine's slots at once; 0: by measured memory")
    max_cpu_loras: int = Field(0, ge=0, description="adapters kept in host memory; 0: by measured memory")
    max_folder_bytes: int = Field(10 * 2**30, ge=0, description="adapters in an engine's local folder; 0: no limit")
    max_lora_rank: Literal[0, 1, 8, 16, 32, 64, 128, 256, 320, 512] = Field(
        0, description="0: what the recipe needs; read it as Settings.max_lora_rank"
    )
    max_num_seqs: int = Field(32, gt=0, description="answers and synthetic tasks decoded at the same time")
    cpu_kv_cache_gib: int = Field(2, gt=0, description="KV cache in GiB, where there is no GPU")
    gpu_memory_fraction: float = Field(0.6, gt=0, lt=1, description="of the GPU, for weights and KV cache")
    tool_call_parser: str = Field(
        "hermes", description="vLLM's, by how the base model writes its calls; empty: requests with tools are refused"
    )
    extra_args: tuple[str, ...] = Field((), description="passed on to vLLM as they are")


class WorkerSettings(_Section):
    """The training worker."""

    gpu_memory_fraction: float = Field(0.35, gt=0, lt=1, description="of the GPU, for the trainer")
    synthesis_concurrency: int = Field(24, gt=0, description="samples in flight at the engine")
    min_tokens_per_step: int = Field(
        0, ge=0, description="of one optimizer step; 0: 2048 on a GPU, the recipe's on a CPU"
    )
    lease_s: float = Field(30, gt=1, description="a worker silent for so long loses its job")
    max_attempts: int = Field(3, gt=0, description="deliveries of a job before it fails for good")
    stall_s: float = Field(600, gt=0, description="a training child without progress for so long is killed")


class RedisSettings(_Section):
    """Redis or Valkey, 6.2 or later. `REDIS_URL` and `LIFT_REDIS_URL` are short for `url`."""

    blobs_url: str = Field("", description="a second instance for adapters (allkeys-lru); empty: the same")
    blob_ttl_s: int = Field(7 * 86400, gt=0, description="adapters leave Redis after so long; the store keeps them")
    max_memory_mb: int = Field(1024, gt=0, description="of the embedded Valkey")


class SloSettings(_Section):
    """What a streamed question is promised; `lift_slo_good_total` counts those that kept it."""

    warm_ttft_s: float = Field(0.5, gt=0, description="seconds to its first token, where the adapter was there")
    cold_ttft_s: float = Field(10, gt=0, description="likewise where it waited for its document's training")


class LimitSettings(_Section):
    """What a key may use unless it says otherwise, and what all may have together; 0: no limit."""

    requests_per_minute: int = Field(0, ge=0, description="requests of a key, and without keys; 0: no limit")
    tokens_per_minute: int = Field(0, ge=0, description="tokens of prompts and answers, as the engine counts them")
    documents: int = Field(0, ge=0, description="documents that an owner keeps; 0: no limit")
    bytes: int = Field(0, ge=0, description="bytes of an owner's uploads, together")
    training: int = Field(0, ge=0, description="an owner's documents in training at once")
    max_queued: int = Field(100_000, ge=0, description="everybody's documents that wait for training or are in it")


class ClusterSettings(_Section):
    """`lift-serve up --ray`: how many engines and workers, and on what. There `engines` and `workers` do not count."""

    engines_min: int = Field(1, ge=1, description="engines, at least")
    engines_max: int = Field(1, ge=1, description="engines, at most; more while slo.warm_ttft_s is missed")
    workers_min: int = Field(1, ge=1, description="workers, at least")
    workers_max: int = Field(1, ge=1, description="workers, at most; more while documents wait for slo.cold_ttft_s")
    together: bool = Field(
        False, description="an engine and a worker on one GPU, split by the two gpu_memory_fraction; as many as engines"
    )
    engine_gpus: int = Field(1, ge=0, description="of an engine that is alone on them; none where device is cpu")
    worker_gpus: int = Field(1, ge=0, description="likewise of a worker")
    cool_down_s: float = Field(300, ge=0, description="one fewer must have done for so long before one is taken away")


class Settings(BaseSettings):
    """The whole tree. Build it once, in a process's `main`, and pass it on."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix="LIFT_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        hide_input_in_errors=True,  # a secret that is refused is not to stand in a log
    )

    base_model: str = Field(BUNDLED_MODEL, description="a Hugging Face id, a folder, or the bundled model")
    base_revision: str = Field("main", description="part of every adapter's identity")
    served_name: str = Field("", description="the base model's name in the API; empty: from base_model")
    home: Path = Field(Path(".lift"), description="state of a local installation: store, adapters, logs")
    store_url: str = Field("", description="file:///… or s3://bucket/prefix; empty: <home>/store")
    redis_url: str = Field(
        "",
        validation_alias=AliasChoices("LIFT_REDIS_URL", "REDIS_URL", "redis_url"),
        description="Redis or Valkey; also REDIS_URL; empty: an embedded Valkey",
    )
    adapter_secrets: tuple[Annotated[SecretStr, Field(min_length=16)], ...] = Field(
        (), description="the first signs adapters' manifests, any of them verifies; empty: not signed"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="what engine and worker run on")
    cpu_dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="without a GPU; see machine.py")
    engines: int = Field(1, ge=1, description="vLLM engines started on this machine, one per GPU")
    workers: int = Field(1, ge=1, description="training workers started on this machine, one per GPU")
    recipe: str = Field("balanced", description="how a document is trained unless its upload says otherwise")
    log_format: LogFormat = Field("text", description="of our processes' logs; json: one object a line")
    otlp_endpoint: str = Field("", description="OTLP over HTTP, http://…/v1/traces; empty: no traces")
    server: ServerSettings = ServerSettings()
    engine: EngineSettings = EngineSettings()
    worker: WorkerSettings = WorkerSettings()
    redis: RedisSettings = RedisSettings()
    slo: SloSettings = SloSettings()
    limits: LimitSettings = LimitSettings()
    cluster: ClusterSettings = ClusterSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get("LIFT_CONFIG")
        file = [YamlConfigSettingsSource(settings_cls, yaml_file=path)] if path else []
        return (init_settings, env_settings, *file)

    @model_validator(mode="before")
    @classmethod
    def _refuse_a_missing_file(cls, values: Any) -> Any:
        """pydantic-settings would go on with the defaults."""
        path = os.environ.get("LIFT_CONFIG")
        if path and not Path(path).is_file():
            raise ValueError(f"LIFT_CONFIG names {path}, which is no file")
        return values

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_variables(cls, values: Any) -> Any:
        """pydantic-settings reads the variables it knows and passes over a misspelled one in silence."""
        sections = {
            name.removeprefix("LIFT_").split("__")[0].lower() for name in os.environ if name.startswith("LIFT_")
        }
        if unknown := sections - set(cls.model_fields) - NOT_SETTINGS:
            names = ", ".join(f"LIFT_{name.upper()}" for name in sorted(unknown))
            raise ValueError(f"unknown variable in the environment: {names}")
        return values

    @model_validator(mode="after")
    def _agree(self) -> Self:
        recipes = load_recipes()
        if self.recipe not in recipes:
            raise ValueError(f"recipe: unknown recipe {self.recipe!r}; known: {', '.join(sorted(recipes))}")
        rank = _needed_rank(self.recipe)
        if rank > self.max_lora_rank:
            raise ValueError(
                f"engine.max_lora_rank: {self.max_lora_rank} is below the rank {rank} of recipe {self.recipe!r}"
            )
        if 0 < self.engine.max_cpu_loras < self.engine.max_loras:
            raise ValueError("engine.max_cpu_loras: must be at least engine.max_loras")
        if self.engine.gpu_memory_fraction + self.worker.gpu_memory_fraction > 1:
            raise ValueError("engine.gpu_memory_fraction + worker.gpu_memory_fraction: more than one GPU")
        if self.cluster.engines_min > self.cluster.engines_max:
            raise ValueError("cluster.engines_max: must be at least cluster.engines_min")
        if self.cluster.workers_min > self.cluster.workers_max:
            raise ValueError("cluster.workers_max: must be at least cluster.workers_min")
        self._check_registration()
        return self

    def _check_registration(self) -> None:
        if not self.engine.registered:
            return
        if self.engine.urls:
            raise ValueError("engine.urls: not together with engine.registered, which finds the engines in Redis")
        if not self.engine.api_key:
            raise ValueError(
                "engine.api_key: engine.registered needs one, the same for every engine, worker and server"
            )
        if not self.engine.address and self.engine.host in EVERY_ADDRESS:
            raise ValueError(f"engine.address: others cannot reach {self.engine.host}; say how they reach this machine")
        address = ADDRESS.fullmatch(self.engine.address)
        if self.engine.address and not address:
            raise ValueError(f"engine.address: {self.engine.address!r} is not like http://host:port")
        first_port = int((address and address["port"]) or self.engine.port)
        if first_port + self.engines - 1 > LAST_PORT:
            raise ValueError(f"engine.address: {self.engines} engines from port {first_port} on are too many")

    @property
    def base_model_is_folder(self) -> bool:
        """Whether `base_model` names a folder; told by its spelling, so that every process agrees."""
        return self.base_model.count("/") > 1 or self.base_model[0] in "/.~"

    @property
    def model_name(self) -> str:
        """The base model's name in the API: never a folder path (product.md)."""
        return self.served_name or (Path(self.base_model).name if self.base_model_is_folder else self.base_model)

    @property
    def max_lora_rank(self) -> int:
        """`engine.max_lora_rank`, or the lowest that vLLM allows for the recipe and its drafts."""
        needed = _needed_rank(self.recipe)
        return self.engine.max_lora_rank or next((rank for rank in LORA_RANKS if rank >= needed), LORA_RANKS[-1])

    @property
    def engine_urls(self) -> tuple[str, ...]:
        """Where the engines listen, without a trailing slash; none where they are to be found in Redis."""
        if self.engine.registered:
            return ()
        here = (f"http://{self.engine.host}:{self.engine.port + i}" for i in range(self.engines))
        return tuple(url.rstrip("/") for url in self.engine.urls) or tuple(here)

    def engine_address(self, index: int) -> str:
        """How others reach an engine of this machine."""
        given = urlsplit(self.engine.address)
        host = given.hostname or self.engine.host
        host = f"[{host}]" if ":" in host else host
        return f"{given.scheme or 'http'}://{host}:{(given.port or self.engine.port) + index}"

    @property
    def resolved_store_url(self) -> str:
        """`store_url`, or the folder below `home` as a file URL."""
        return self.store_url or (self.home.resolve() / "store").as_uri()


def _needed_rank(recipe: str) -> int:
    return max(stage.rank for stage in load_recipes()[recipe].stages())
