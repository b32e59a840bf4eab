"""How fast the trainer is: ours against the reference loop, on one task file and one model, in one run.

    .venv/bin/python scripts/bench_train.py --out train
    PYTHONPATH=config:workers python3 scripts/bench_train.py --shape llama-3-8b --tokenizer … --repeat 8 --out train-8b

In: tasks (JSON lines: title, question, answer), a model folder or a shape filled with random weights. Both loops are
loaded in processes of their own and take turns, so that a noisy machine is noisy to both. Out:
docs/benchmarks/<out>.json and <out>.md: useful and computed tokens/s, share of the matmul peak, peak memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bench_common import TABLES, prepared_model, stated, table, where, write
from bench_shape import SHAPES, hollow_model, labelled
from bench_train_loops import Loaded, Loop, Ours, Plan, Reference, Round, now, serve
from lift_config.machine import SPIN_COUNT
from lift_config.recipe import load_recipes

MATMUL_SIZE = {"cpu": 2048, "cuda": 8192}
MATMUL_TRIES = 5


@dataclass(frozen=True)
class Sizes:
    """Parameters that are multiplied: the base model's linear layers, its head, the adapter's."""

    linear: int
    head: int
    lora: int

    def flops(self, tokens: int, logit_rows: int) -> float:
        """Of forward and backward to the inputs; the adapter's gradients once more. Attention's own products are
        left out: with examples of some fifty tokens they are below a percent."""
        return tokens * (4.0 * self.linear + 6.0 * self.lora) + logit_rows * 4.0 * self.head


@dataclass(frozen=True)
class Speed:
    """One loop at one step size: medians over the rounds. `peak_tflops`: the best matmul of this run."""

    dtype: str
    loop: str
    steps: int
    useful_tokens_s: float
    computed_tokens_s: float
    ratio: float
    tflops: float
    sustained_tflops: float
    peak_tflops: float
    peak_memory_mb: float
    rounds_s: Sequence[float]


def main() -> None:
    arguments = _arguments()
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)  # as the worker's child
    os.environ.setdefault("TQDM_DISABLE", "1")
    tasks = [json.loads(line) for line in arguments.tasks.read_text("utf-8").splitlines()][: arguments.limit]
    with tempfile.TemporaryDirectory() as folder:
        model = _model(arguments, Path(folder))
        name = labelled(arguments.shape) if arguments.shape else Path(model).name
        measured = where(name) | _accelerator(arguments.device)
        speeds: list[Speed] = []
        for dtype in arguments.dtypes or _fast_dtypes(arguments.device):
            plan = Plan(model, tasks, arguments.recipe, arguments.device, dtype, arguments.repeat)
            speeds += compare(plan, arguments.tokens_per_step, arguments.rounds)
            report(speeds, measured, arguments, len(tasks))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=Path, default=TABLES / "tasks.jsonl")
    parser.add_argument("--limit", type=int, help="only the first so many tasks")
    parser.add_argument("--model", help="folder or id; default: the bundled base model")
    parser.add_argument("--shape", help=f"random weights instead: {', '.join(SHAPES)}, or a config.json")
    parser.add_argument("--tokenizer", help="folder or id, for --shape; default: the bundled base model's")
    parser.add_argument("--recipe", default="fast", choices=sorted(load_recipes()), help="its rank and rate")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16"), help="default: what the device can")
    parser.add_argument("--tokens-per-step", type=int, nargs="+", default=[512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=1, help="passes over the tasks in a round")
    parser.add_argument("--out", required=True, help="name of the table below docs/benchmarks")
    return parser.parse_args()


def compare(plan: Plan, step_sizes: Sequence[int], rounds: int) -> list[Speed]:
    """Reference, then ours at every step size, then the reference again, for so many rounds."""
    peak = 0.0
    reference: list[Round] = []
    ours: dict[int, list[Round]] = {size: [] for size in step_sizes}
    with _child(Reference, plan) as theirs, _child(Ours, plan) as mine:
        sizes, useful = _sizes(plan), theirs.useful_tokens
        for number in range(rounds + (plan.device == "cuda")):  # a GPU's first round compiles and fills caches
            peak = max(peak, _matmul_flops(plan))
            reference.append(theirs.round(0))
            for size, done in ours.items():
                done.append(mine.round(size))
            said = ", ".join(f"{size} tokens a step {done[-1].seconds:.1f} s" for size, done in ours.items())
            print(f"{plan.dtype}, round {number}: reference {reference[-1].seconds:.1f} s, {said}", flush=True)
    loops: list[tuple[int | None, list[Round]]] = [(None, reference), *ours.items()]
    return [speed(plan.dtype, size, done[-rounds:], reference[-rounds:], useful, sizes, peak) for size, done in loops]


def speed(
    dtype: str,
    tokens_per_step: int | None,
    rounds: Sequence[Round],
    reference: Sequence[Round],
    useful: int,
    sizes: Sizes,
    peak: float,
) -> Speed:
    """Medians, since a machine's noise is one-sided. `tokens_per_step` None: the reference itself."""

    def tflops(done: Round) -> float:
        return sizes.flops(done.tokens, done.logit_rows) / done.seconds / 1e12

    return Speed(
        dtype=dtype,
        loop=f"ours, {tokens_per_step} tokens a step" if tokens_per_step else "reference",
        steps=len(rounds[0].steps),
        useful_tokens_s=statistics.median(useful / done.seconds for done in rounds),
        computed_tokens_s=statistics.median(done.tokens / done.seconds for done in rounds),
        ratio=statistics.median(r.seconds / done.seconds for done, r in zip(rounds, reference, strict=True)),
        tflops=statistics.median(map(tflops, rounds)),
        sustained_tflops=statistics.median(tflops(done.last_half()) for done in rounds),
        peak_tflops=peak / 1e12,
        peak_memory_mb=max(done.peak_bytes for done in rounds) / 2**20,
        rounds_s=[done.seconds for done in rounds],
    )


# ---- the two loops' processes -----------------------------------------------------------------------------------


class _Child:
    """One loop in its process; each call returns when it is done."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        loaded: Loaded = pipe.recv()
        self.useful_tokens = loaded.useful_tokens

    def round(self, tokens_per_step: int) -> Round:
        self._pipe.send(tokens_per_step)
        done: Round = self._pipe.recv()
        return done

    def end(self) -> None:
        self._pipe.send(None)


@contextmanager
def _child(loop: Callable[[Plan], Loop], plan: Plan) -> Iterator[_Child]:
    """A child that fails closes its end, upon which recv() raises EOFError."""
    context = multiprocessing.get_context("spawn")  # CUDA does not outlive a fork
    pipe, its_end = context.Pipe()
    process = context.Process(target=serve, args=(loop, plan, its_end))
    process.start()
    its_end.close()
    try:
        child = _Child(pipe)
        yield child
        child.end()
        process.join()
    finally:
        process.kill()


# ---- what they train, on what -------------------------------------------------------------------------------------


def _model(arguments: argparse.Namespace, folder: Path) -> str:
    """A folder or id that transformers loads."""
    if not arguments.shape:
        return arguments.model or prepared_model().path_or_id
    hollow_model(arguments.shape, arguments.tokenizer or prepared_model().path_or_id, folder)
    return str(folder)


def _sizes(plan: Plan) -> Sizes:
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(plan.model))
    return sizes(model, load_recipes()[plan.recipe].rank)


def sizes(model: Any, rank: int) -> Sizes:
    head = model.get_output_embeddings()
    linears = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head]
    return Sizes(
        linear=sum(module.weight.numel() for module in linears),
        head=head.weight.numel(),
        lora=rank * sum(module.in_features + module.out_features for module in linears),
    )


def _matmul_flops(plan: Plan) -> float:
    """The best of a few large square products, in the trainers' dtype: what this device can do."""
    size = MATMUL_SIZE[plan.device]
    a, b = (torch.randn(size, size, device=plan.device).to(plan.torch_dtype) for _ in range(2))
    seconds = []
    for _ in range(MATMUL_TRIES):
        began_s = now(plan.device)
        a @ b
        seconds.append(now(plan.device) - began_s)
    return 2.0 * size**3 / min(seconds)


def _fast_dtypes(device: str) -> list[str]:
    """What the product would compute in, and on a CPU float32 in any case."""
    if device == "cuda":
        return ["bfloat16"]
    from lift_config.machine import cpu_dtype  # a GPU host may lack what the settings need
    from lift_config.settings import Settings

    return ["float32"] if cpu_dtype(Settings()) == "float32" else ["float32", "bfloat16"]


def _accelerator(device: str) -> dict[str, str]:
    if device == "cuda":
        return {"device": torch.cuda.get_device_name()}
    return {"device": f"CPU, {torch.get_num_threads()} threads"}


# ---- the table ----------------------------------------------------------------------------------------------------

HEADER = (
    "dtype", "loop", "steps", "useful tokens/s", "computed tokens/s", "**ratio**", "TFLOP/s", "TFLOP/s, last half",
    "matmul peak TFLOP/s", "share of peak", "peak memory MB",
)  # fmt: skip


def report(speeds: list[Speed], measured: dict[str, str], arguments: argparse.Namespace, tasks: int) -> None:
    command = f"scripts/bench_train.py {' '.join(sys.argv[1:])}"
    lines = [
        f"# {arguments.out}: the trainer against the reference loop",
        "",
        f"`{command}`; {stated(measured)}",
        f"{tasks} tasks, {arguments.rounds} rounds, medians; LoRA of recipe `{arguments.recipe}`.",
        "",
        *table(HEADER, map(cells, speeds)),
        "",
        *NOTES,
    ]
    write(arguments.out, {"where": measured, "command": command, "rows": [asdict(one) for one in speeds]}, lines)


def cells(one: Speed) -> list[Any]:
    return [
        one.dtype, one.loop, one.steps, f"{one.useful_tokens_s:.0f}", f"{one.computed_tokens_s:.0f}",
        f"**{one.ratio:.2f}**", f"{one.tflops:.3g}", f"{one.sustained_tflops:.3g}", f"{one.peak_tflops:.3g}",
        f"{one.tflops / one.peak_tflops:.0%}", f"{one.peak_memory_mb:.0f}",
    ]  # fmt: skip


NOTES = (
    "Reference: transformers' Trainer with PEFT LoRA on all linear layers, padded batches of 4, logits at every",
    "position, LIFT v4's template, AdamW at a constant rate, no gradient checkpointing; autocast in bfloat16.",
    "Useful tokens: the unpadded tokens of the reference's examples, for both loops the same. Ratio: of useful",
    "tokens/s, each round's to the reference's of the same round. TFLOP/s: of the tokens each loop really computed.",
)


if __name__ == "__main__":
    main()
