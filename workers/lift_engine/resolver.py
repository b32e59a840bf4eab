"""vLLM's general plug-in: makes adapter ids names of models that vLLM can load.

In: an adapter id asked for as a model's name. Out: a LoRARequest for its verified local folder, or None.
vLLM calls `register` in every one of its processes, so it opens nothing.
"""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from lift_config.logs import LogFormat, formatter
from lift_config.settings import Settings
from lift_engine.adapters import AdapterFolder, AdapterUnknown
from lift_engine.cpu_lora import patch_cpu_operators
from lift_engine.cpu_seed import patch_cpu_runner
from lift_engine.launch import INDEX_VARIABLE, LOG_TEXT

RESOLVER_NAME = "lift"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def register() -> None:
    """Entry point `vllm.general_plugins`; idempotent."""
    settings = Settings()
    _log_to_stderr(settings.log_format)
    _end_with_parent()
    patch_cpu_operators()
    patch_cpu_runner()
    if RESOLVER_NAME not in LoRAResolverRegistry.get_supported_resolvers():
        folder = AdapterFolder(settings, int(os.environ.get(INDEX_VARIABLE, "0")))
        LoRAResolverRegistry.register_resolver(RESOLVER_NAME, LiftResolver(folder))


class LiftResolver(LoRAResolver):  # type: ignore[misc] # vLLM is Any to mypy (pyproject.toml)
    """AdapterFolder, as vLLM wants it."""

    def __init__(self, folder: AdapterFolder) -> None:
        self.folder = folder

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """None for an unknown id; AdapterError where it is known but must not be used."""
        try:
            path = await self.folder.fetch(lora_name)
        except AdapterUnknown:
            return None
        return LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(path))  # vLLM sets the number


def _end_with_parent() -> None:
    """vLLM's child processes outlive a killed server and keep its memory, so that none could start again."""
    if multiprocessing.parent_process() is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _log_to_stderr(log_format: LogFormat) -> None:
    """vLLM configures only its own loggers."""
    logger = logging.getLogger("lift_engine")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter(log_format, LOG_TEXT))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
