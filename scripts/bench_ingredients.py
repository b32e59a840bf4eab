"""What each ingredient of the training is worth, at the same number of computed training tokens.

    .venv/bin/python scripts/bench_ingredients.py --data ../shared/eval/large.jsonl --out ingredients

In: documents with paragraphs and questions (../shared/eval/README.md); windows of a few paragraphs are trained in this
process, without an engine. Out: docs/benchmarks/<out>.json and .md, rewritten after each variant.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from bench_common import Document, prepared_model, read_documents, stated, table, where, write
from evaluate_columns import Record, ask, name_of
from evaluate_metrics import Sums, difference
from evaluate_scorer import Scorer
from lift_config.machine import SPIN_COUNT, cpu_dtype
from lift_config.recipe import Recipe, load_recipes
from lift_config.segment import Segment, segment
from lift_config.settings import Settings
from lift_workers.cover import BLANK, cloze, recite
from lift_workers.encode import Encoder, Pack, pack
from lift_workers.session import Batch, filled
from lift_workers.synthesize import SyntheticTask
from lift_workers.train import WarmTrainer

WINDOW_WORDS = 430  # the paragraph that reaches them is a window's last: about 450
LEAST_WORDS, LEAST_QUESTIONS = 250, 3
ANSWER_TOKENS = 32
SOFT = 0.5  # of an answer's loss, where there is a teacher
_WORD = re.compile(r"\w+")
_FILL = "Fill in the blank: "  # cover.py's, where it asks with a blank


@dataclass(frozen=True)
class Variant:
    """A segment's gaps, asked as the product does or with a blank in the "clause" or the whole "segment"; a recital;
    the weight of the questions' own words; whether half of what the answers teach comes from a teacher; whether
    answers go on with their segment; the adapter's alpha, of the training's."""

    gaps: int = 4
    blank: str = ""
    recites: bool = False
    prompt_loss_weight: float = 0.0
    is_soft: bool = False
    quotes: bool = False
    served: float = 1.0

    def tasks(self, one: Segment) -> list[SyntheticTask]:
        gaps = cloze(one, self.gaps)
        asked = [blanked(one, task, self.blank == "segment") for task in gaps] if self.blank else gaps
        answered = [task.quoting(one) for task in asked] if self.quotes else asked
        return answered + [recite(one)] * self.recites


REFERENCE = "clause, question"
VARIANTS = {
    REFERENCE: Variant(),
    "sentence, blank": Variant(blank="segment"),
    "clause, blank": Variant(blank="clause"),
    "clause, question, prompt 0.3": Variant(prompt_loss_weight=0.3),
    "clause, question, prompt 1": Variant(prompt_loss_weight=1),
    "clause, question, prompt 3": Variant(prompt_loss_weight=3),
    "clause, question, prompt 1, recite": Variant(prompt_loss_weight=1, recites=True),
    "clause, question, prompt 1, served 3/4": Variant(prompt_loss_weight=1, served=0.75),
    "two gaps, prompt 1, quote": Variant(gaps=2, prompt_loss_weight=1, quotes=True),
    "two gaps, prompt 1, quote, recite": Variant(gaps=2, prompt_loss_weight=1, quotes=True, recites=True),
    "two gaps, prompt 1, quote, served 3/4": Variant(gaps=2, prompt_loss_weight=1, quotes=True, served=0.75),
    "recite only": Variant(gaps=0, recites=True),
    "clause, question, soft labels": Variant(is_soft=True),
    "clause, question, prompt 1, soft labels": Variant(prompt_loss_weight=1, is_soft=True),
}


@dataclass(frozen=True)
class Outcome:
    """Records of each window's questions; computed tokens and steps over all windows."""

    records: Mapping[str, Sequence[Record]]
    tokens: int = 0
    steps: int = 0

    def sums(self) -> Sums:
        """Nats per token of the gold answers."""
        nll, tokens = ({w: [one[key] for one in own] for w, own in self.records.items()} for key in ("nll", "tokens"))
        return Sums(nll, tokens)


def main() -> None:
    if "GOMP_SPINCOUNT" not in os.environ:  # read when torch is loaded: again, with it (why: machine.py)
        os.execve(sys.executable, sys.orig_argv, {**os.environ, "GOMP_SPINCOUNT": SPIN_COUNT})
    arguments = _arguments()
    chosen = windows(read_documents(arguments.data), arguments.prefix, arguments.windows)
    model = prepared_model()
    device = "cuda" if torch.cuda.is_available() and Settings().device != "cpu" else "cpu"
    dtype = "bfloat16" if device == "cuda" else cpu_dtype(Settings())
    measured = where(model.served_name) | {"trained and scored in": f"{dtype} on {device}"}
    scorer = Scorer(model.path_or_id, dtype, device)
    trainer = SoftTrainer(model.path_or_id, revision=model.revision, device=device, dtype=getattr(torch, dtype))
    found: dict[str, Outcome] = {}
    for name, outcome in outcomes(chosen, scorer, trainer, arguments.tokens):
        found[name] = outcome
        write(arguments.out, {"measured": measured, "variants": summary(found)}, _report(arguments, measured, found))
        print(f"{name}: {outcome.sums().value():.3f}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--prefix", default="squad-", help="of the documents' ids")
    parser.add_argument("--windows", type=int, default=6, help="one of each document")
    parser.add_argument("--tokens", type=int, default=4000, help="computed in the training of each window")
    parser.add_argument("--out", default="ingredients", help="name of the table below docs/benchmarks")
    return parser.parse_args()


def windows(documents: Sequence[Document], prefix: str, count: int) -> list[Document]:
    """Of each of the first documents the window with the most questions. ValueError where there are too few."""
    by_document = (_windows(document) for document in documents if name_of(document).startswith(prefix))
    found = [max(own, key=lambda window: len(window["qa"])) for own in by_document if own]
    if len(found) < count:
        raise ValueError(f"{len(found)} documents of {prefix!r} have a window, not {count}")
    return found[:count]


def _windows(document: Document) -> list[Document]:
    paragraphs = [part for part in document["text"].split("\n\n") if part.strip()]
    asked = matched(paragraphs, document["qa"])
    found: list[Document] = []
    first = words = 0
    for last, paragraph in enumerate(paragraphs, 1):
        words += len(paragraph.split())
        if words >= WINDOW_WORDS or last == len(paragraphs):
            questions = [question for number in range(first, last) for question in asked[number]]
            if words >= LEAST_WORDS and len(questions) >= LEAST_QUESTIONS:
                found.append(document | {"text": "\n\n".join(paragraphs[first:last]), "qa": questions})
            first, words = last, 0
    return found


def matched(paragraphs: Sequence[str], questions: Sequence[Document]) -> dict[int, list[Document]]:
    """Questions by the paragraph that holds an answer and most of their rare words; those without one are left out."""
    words = [set(_WORD.findall(paragraph.lower())) for paragraph in paragraphs]
    often = Counter(word for own in words for word in own)
    found: dict[int, list[Document]] = defaultdict(list)
    for question in questions:
        asked = set(_WORD.findall(question["question"].lower()))
        scores = {
            number: sum(math.log(1 + len(paragraphs) / (often[word] + 0.5)) for word in asked & words[number])
            for number, paragraph in enumerate(paragraphs)
            if any(answer.lower() in paragraph.lower() for answer in question["answers"])
        }
        if any(scores.values()):
            found[max(scores, key=scores.__getitem__)].append(question)
    return found


def blanked(one: Segment, task: SyntheticTask, is_whole: bool) -> SyntheticTask:
    """cover.cloze's task with a blank in its gap: in its clause, or in the whole segment."""
    assert task.stand_in is not None
    first, last = task.stand_in
    said, after = task.question[:first].removeprefix(_FILL), task.question[last:].removesuffix("?")
    for before in (said, said[:1].lower() + said[1:]):
        if (start := one.text.find(f"{before}{task.answer}{after}")) >= 0:
            if is_whole:
                before, after = one.text[: start + len(before)], one.text[start + len(before + task.answer) :]
            begun = f"{_FILL}{before}"
            stand_in = len(begun), len(begun) + len(BLANK)
            return SyntheticTask(task.segment, f"{begun}{BLANK}{after}", task.answer, stand_in)
    raise ValueError(f"segment {task.segment} does not hold what it is asked: {task.question!r}")


class SoftTrainer(WarmTrainer):
    """The product's trainer, steps and all; where `teacher_TV` is set, it is half of what the answers are to learn."""

    teacher_TV: torch.Tensor | None = None

    def loss(self, pack: Pack) -> torch.Tensor:
        if self.teacher_TV is None:
            return super().loss(pack)
        return blended_loss(self._logits(pack), self.teacher_TV, pack, SOFT)


def blended_loss(logits_AV: torch.Tensor, teacher_TV: torch.Tensor, pack: Pack, share: float) -> torch.Tensor:
    """Cross-entropy; of the first T rows `share` of it is the divergence from the teacher's probabilities instead."""
    log_AV = logits_AV.float().log_softmax(-1)
    hard_A = torch.nn.functional.nll_loss(log_AV, pack.labels_A, reduction="none")
    count = len(teacher_TV)
    soft_T = torch.nn.functional.kl_div(log_AV[:count], teacher_TV, reduction="none").sum(-1)
    return torch.cat([(1 - share) * hard_A[:count] + share * soft_T, hard_A[count:]]) @ pack.weights_A


def outcomes(texts: list[Document], scorer: Scorer, trainer: SoftTrainer, budget: int) -> Iterator[tuple[str, Outcome]]:
    for name, is_given in (("closed book", False), ("in context", True)):
        yield name, Outcome({name_of(one): _asked(one, scorer, one["text"] if is_given else None) for one in texts})
    for name, variant in VARIANTS.items():
        records, tokens, steps = {}, 0, 0
        for one in texts:
            own_tokens, own_steps = train(one, variant, scorer, trainer, budget)
            tokens, steps = tokens + own_tokens, steps + own_steps
            with tempfile.TemporaryDirectory() as folder:
                trainer.export(Path(folder))
                with scorer.adapter(Path(folder)):
                    records[name_of(one)] = _asked(one, scorer, None)
        yield name, Outcome(records, tokens, steps)


def _asked(window: Document, scorer: Scorer, text: str | None) -> list[Record]:
    return ask(scorer, window["title"], window["qa"], [text] * len(window["qa"]), ANSWER_TOKENS, None)


def train(window: Document, variant: Variant, scorer: Scorer, trainer: SoftTrainer, budget: int) -> tuple[int, int]:
    """Recipe `balanced` but for what is compared; computed tokens and steps."""
    recipe = load_recipes()["balanced"]
    changes = {"prompt_loss_weight": variant.prompt_loss_weight, "served_alpha": round(variant.served * recipe.alpha)}
    recipe = recipe.model_copy(update=changes)
    encoder, title = Encoder(trainer.tokenizer), window["title"]
    tasks = [(one, task) for one in segment(window["text"]) for task in variant.tasks(one)]
    examples = [encoder.encode(task.question, task.answer, title, task.stand_in) for _, task in tasks]
    taught: dict[int, torch.Tensor] = {}  # by example: what the base model expects with the segment in its prompt
    for (one, task), example in zip(tasks, examples, strict=True):
        if variant.is_soft:
            prompt = scorer.prompt(title, task.question, f"{one.context} {one.text}".strip())
            taught[id(example)] = scorer.logits([prompt], [list(example.answer)])[0].float().softmax(-1)
    steps = within(examples, recipe, budget, trainer.device)
    trainer.begin(recipe)
    for batch, packed in steps:
        trainer.teacher_TV = torch.cat([taught[id(example)] for example in batch]) if taught else None
        trainer.step(packed, len(steps))
    return sum(len(packed.input_ids_T) for _, packed in steps), len(steps)


def within(examples: Batch, recipe: Recipe, budget: int, device: torch.device) -> list[tuple[Batch, Pack]]:
    """As many steps as reach `budget` computed tokens, epoch after epoch. ValueError without an example."""
    if not examples:
        raise ValueError("nothing to train")
    steps: list[tuple[Batch, Pack]] = []
    shuffle, order, tokens = random.Random(recipe.seed), examples, 0
    while True:
        for batch in filter(None, filled(order, recipe.tokens_per_step)):
            steps.append((batch, pack(batch, device, recipe.prompt_loss_weight)))
            tokens += len(steps[-1][1].input_ids_T)
            if tokens >= budget:
                return steps
        order = shuffle.sample(examples, len(examples))


def summary(found: Mapping[str, Outcome]) -> dict[str, dict[str, Any]]:
    """By variant; `less_reference`: with its 95 % interval, None until the reference is measured and for itself."""
    values: dict[str, dict[str, Any]] = {}
    for name, outcome in found.items():
        sums, records = outcome.sums(), [one for own in outcome.records.values() for one in own]
        by_window = {window: sums.restricted([window]).value() for window in outcome.records}
        less = difference(sums, found[REFERENCE].sums()) if REFERENCE in found and name != REFERENCE else None
        values[name] = {
            "nll": sums.value(),
            "mean_over_windows": sum(by_window.values()) / len(by_window),
            "less_reference": asdict(less) if less else None,
            "contained": int(sum(one["contained"] for one in records)),
            "questions": len(records),
            "tokens_a_window": outcome.tokens / len(by_window),
            "steps_a_window": outcome.steps / len(by_window),
            "nll_by_window": by_window,
        }
    return values


def _report(arguments: argparse.Namespace, measured: dict[str, str], found: Mapping[str, Outcome]) -> list[str]:
    header = ("variant", "NLL", "mean over windows", f"less `{REFERENCE}`", "contained", "tokens", "steps")
    return [
        "# What each ingredient of the training is worth",
        "",
        f"`scripts/bench_ingredients.py {' '.join(sys.argv[1:])}`; {stated(measured)}",
        f"{arguments.windows} windows of about 450 words, each of another document of `{arguments.data.name}`. (Of our",
        "data, `large.jsonl` is free for tuning.) Tasks are a text's own words only, without a generator: four gaps a",
        "segment, where no other number stands. Recipe `balanced`, with as many epochs as fill the same computed",
        "training tokens for each variant, at alpha where nothing else stands.",
        "NLL: nats per token of the first gold answer, lower is better; 95 % bootstrap intervals. Tokens and steps are",
        "those of a window; a teacher's own passes are not counted.",
        "",
        *table(header, (_row(name, values) for name, values in summary(found).items())),
    ]


def _row(name: str, values: Mapping[str, Any]) -> list[Any]:
    less = values["less_reference"]
    return [
        name,
        *(f"{values[nll]:.3f}" for nll in ("nll", "mean_over_windows")),
        f"{less['value']:+.3f} [{less['low']:+.3f}, {less['high']:+.3f}]" if less else None,
        f"{values['contained']}/{values['questions']}",
        f"{values['tokens_a_window']:.0f}" if values["tokens_a_window"] else None,
        f"{values['steps_a_window']:.1f}" if values["steps_a_window"] else None,
    ]


if __name__ == "__main__":
    main()
