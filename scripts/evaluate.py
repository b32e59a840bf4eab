"""What answers are worth: closed book, in context, few-shot, BM25, LIFT, hybrid, with the harm done and the time spent.

    .venv/bin/python scripts/evaluate.py --data ../shared/eval/smoke.jsonl --recipes fast balanced --out smoke
    .venv/bin/python scripts/evaluate.py --data tests/e2e/invented.json --server http://127.0.0.1:8000 --out served

In: documents with questions (JSON or JSON lines, ../shared/eval/README.md). Trains with the worker's own pipeline and
scores in this process, or asks a running product. Out: docs/benchmarks/<out>.json, .md and .svg, rewritten after every
document. What is measured is kept in .lift/evaluate/<out>.jsonl: the same command goes on where it was broken off.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench_common import HOME, TABLES, Document, prepared_model, read_documents, stated, where
from evaluate_columns import COLUMNS, Judge, name_of
from evaluate_judge import PROMPT, LlmJudge
from evaluate_plot import plot
from evaluate_report import as_json, summary, tables
from evaluate_run import HARM, Plan, Run
from evaluate_scorer import Scorer
from evaluate_server import ServerPlan, ServerRun
from evaluate_state import Fingerprint, OtherRunError, Progress, State
from evaluate_training import courses, workshop
from lift_config.machine import SPIN_COUNT, cpu_dtype
from lift_config.prompts import PROMPT_VERSION
from lift_config.recipe import load_recipes
from lift_config.settings import Settings

NAMES = {name.replace(" ", "-").lower(): name for name in (*COLUMNS, HARM)}
STATES = HOME / "evaluate"


def main() -> None:
    if "GOMP_SPINCOUNT" not in os.environ:  # read when torch is loaded: again, with it (why: machine.py)
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "GOMP_SPINCOUNT": SPIN_COUNT})
    arguments = _arguments(sys.argv[1:])
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it sets itself to DEBUG
    documents = chosen(arguments.data, arguments.limit, arguments.questions)
    # Taken out: settings refuse variables that they do not know.
    judge_key, server_key = (os.environ.pop(name, "") for name in ("LIFT_JUDGE_KEY", "LIFT_API_KEY"))
    judge = LlmJudge(arguments.judge_url, arguments.judge_model, judge_key) if arguments.judge_url else None
    try:
        if arguments.server:
            _ask_server(arguments, documents, judge, server_key)
        else:
            _in_process(arguments, documents, judge)
    except OtherRunError as error:
        raise SystemExit(str(error)) from error


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--limit", type=int, help="documents; default: all")
    parser.add_argument("--questions", type=int, help="of each document, spread over it; default: all")
    parser.add_argument("--columns", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--recipes", nargs="*", choices=sorted(load_recipes()), default=["balanced"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--base-model", help="a Hugging Face id or a folder; default: the settings'")
    parser.add_argument("--window", type=int, help="tokens the text in the prompt may fill; default: the model's own")
    parser.add_argument("--answer-tokens", type=int, default=32, help="of a greedy answer")
    parser.add_argument("--judge-url", help="an OpenAI-compatible address with /v1; its key: LIFT_JUDGE_KEY")
    parser.add_argument("--judge-model")
    parser.add_argument("--server", help="a running product's address, without /v1; its key: LIFT_API_KEY")
    parser.add_argument("--fresh", action="store_true", help="measure everything anew")
    parser.add_argument("--out", required=True, help="name of the table below docs/benchmarks")
    arguments = parser.parse_args(given)
    if bool(arguments.judge_url) != bool(arguments.judge_model):
        parser.error("--judge-url and --judge-model belong together")
    if arguments.server and not arguments.recipes:
        parser.error("--server needs a recipe: the text in the prompt is a document's too")
    return arguments


def chosen(paths: Sequence[Path], limit: int | None, questions: int | None) -> list[Document]:
    """The first documents, each with `questions` spread evenly over its own. ValueError for two of one name."""
    documents = [document for path in paths for document in read_documents(path)][:limit]
    names = [name_of(document) for document in documents]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"several documents are called {', '.join(twice)}")
    return [document | {"qa": spread(document["qa"], questions)} for document in documents]


def spread(all_: Sequence[Any], count: int | None) -> list[Any]:
    """`count` of them at even distances, the first among them; all where there are no more."""
    if count is None or count >= len(all_):
        return list(all_)
    return [all_[number * len(all_) // count] for number in range(count)]


def _fingerprint(arguments: argparse.Namespace, **more: Any) -> Fingerprint:
    """All that decides a figure."""
    recipes = {name: load_recipes()[name].digest() for name in arguments.recipes}
    return {
        "data": [hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in arguments.data],
        "limit": arguments.limit,
        "questions": arguments.questions,
        "columns": sorted(arguments.columns),
        "recipes": recipes,
        "seeds": arguments.seeds,
        "window": arguments.window,
        "answer_tokens": arguments.answer_tokens,
        "prompts": PROMPT_VERSION,
        "judge": [arguments.judge_url, arguments.judge_model, PROMPT] if arguments.judge_url else None,
        "server": arguments.server,
        **more,
    }


# ---- the two ways of asking ---------------------------------------------------------------------------------------


def _in_process(arguments: argparse.Namespace, documents: list[Document], judge: Judge | None) -> None:
    if arguments.base_model:
        os.environ["LIFT_BASE_MODEL"] = arguments.base_model
    model = prepared_model()
    device = "cuda" if torch.cuda.is_available() and Settings().device != "cpu" else "cpu"
    dtype = "bfloat16" if device == "cuda" else cpu_dtype(Settings())
    state = _state(arguments, model=model.path_or_id, revision=model.revision, dtype=dtype, device=device)
    scorer = Scorer(model.path_or_id, dtype, device)
    plan = Plan(
        documents,
        arguments.seeds,
        [NAMES[name] for name in arguments.columns],
        courses(arguments.recipes),
        arguments.answer_tokens,
        arguments.window or scorer.window,
    )
    progress = Progress(plan.units(), state, partial(print, flush=True))
    measured = where(model.served_name) | {"scored in": f"{dtype} on {device}", "window": str(plan.window)}
    run = Run(plan, scorer, state, judge, progress.finished, _writer(arguments, state, measured))
    asyncio.run(run.all(workshop(model)))


def _ask_server(arguments: argparse.Namespace, documents: list[Document], judge: Judge | None, key: str) -> None:
    columns = [NAMES[name] for name in arguments.columns if NAMES[name] != HARM]
    plan = ServerPlan(documents, arguments.recipes, columns, arguments.answer_tokens)
    state = _state(arguments)
    progress = Progress(plan.units(), state, partial(print, flush=True))
    measured = where("a running server's") | {"asked": "a running server, temperature 0"}
    run = ServerRun(arguments.server, key, plan, state, judge, progress.finished, _writer(arguments, state, measured))
    asyncio.run(run.all())


def _state(arguments: argparse.Namespace, **more: str) -> State:
    return State(STATES / f"{arguments.out}.jsonl", _fingerprint(arguments, **more), fresh=arguments.fresh)


def _writer(arguments: argparse.Namespace, state: State, measured: dict[str, str]) -> Callable[[], None]:
    command = f"scripts/evaluate.py {' '.join(sys.argv[1:])}"
    return partial(report, arguments.out, state, measured, command)


def report(name: str, state: State, measured: dict[str, str], command: str, folder: Path = TABLES) -> None:
    """Table, JSON and plot of what there is."""
    found = summary(state.units)
    lines = [
        f"# {name}: what answers are worth",
        "",
        f"`{command}`; {stated(measured)}",
        "NLL: nats per token of the first gold answer, lower is better. The rest are shares of greedy answers. In",
        "brackets 95 % bootstrap intervals over questions, drawn document by document where there are several.",
        "",
        *tables(found),
        "",
        f"![quality against seconds]({name}.svg)",
    ]
    (folder / f"{name}.md").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / f"{name}.json").write_text(as_json(found, measured, command, state.units), "utf-8")
    plot(found, folder / f"{name}.svg")


if __name__ == "__main__":
    main()
