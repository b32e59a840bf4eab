"""What the units come to: an estimate for every metric and column, differences, harm, cost; JSON and Markdown.

In: units, where they were measured. Out: a Summary, the table's lines, the JSON's text. Nothing here measures.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench_common import table
from evaluate_columns import FEW_SHOT, HYBRID, IN_CONTEXT, LIFT, PLAIN
from evaluate_metrics import Estimate, Sums, difference, estimate
from evaluate_run import BASE, GENERAL, OFF_TOPIC
from evaluate_state import Unit

ONE = ""  # a ratio's bottom: each question that has the top counts as one
Ratio = tuple[str, str]
METRICS: Mapping[str, Ratio] = {
    "nll": ("nll", "tokens"),
    **{name: (name, ONE) for name in ("contained", "f1", "em", "choice", "needles", "judge")},
}
HARM: Mapping[str, Ratio] = {
    "nll": ("nll", "tokens"),
    "kl": ("kl", "tokens"),
    "nll_ratio": ("nll", "base_nll"),
    "same": ("same", ONE),
    "refused": ("refused", ONE),
}
TITLES = {"nll": "NLL", "f1": "F1", "em": "EM", "choice": "choices", "judge": "judged right"}
COMPARED = ("nll", "contained", "f1")
SPENT = {
    "seconds": "seconds", "tasks": "tasks", "steps": "steps", "training_tokens": "training tokens",
    "prompt_tokens": "synthesis prompt tokens", "computed_prompt_tokens": "of them computed",
    "generated_tokens": "generated tokens",
}  # fmt: skip


@dataclass(frozen=True)
class Column:
    """`documents`: likelihood by document; `spent`: means over documents and seeds."""

    metrics: dict[str, Estimate]
    documents: dict[str, float]
    spent: dict[str, float]
    prompt_tokens: float | None


@dataclass(frozen=True)
class Summary:
    """`columns` with answers about the document; `differences` to in context, `few_shot_differences` to few-shot;
    `harm` by column, `base` among them."""

    columns: dict[str, Column]
    differences: dict[str, dict[str, Estimate]]
    few_shot_differences: dict[str, dict[str, Estimate]]
    harm: dict[str, dict[str, Estimate]]
    harm_differences: dict[str, Estimate]
    refused: list[tuple[str, str]]

    @property
    def versions(self) -> list[str]:
        """Names of LIFT's columns without the word."""
        return [name.partition(" ")[2] for name in self.columns if name.startswith(f"{LIFT} ")]


def summary(units: Sequence[Unit]) -> Summary:
    told = [unit for unit in units if unit.refused is None]
    by_column: dict[str, list[Unit]] = {}
    for unit in told:
        by_column.setdefault(unit.column, []).append(unit)
    harmful = {name for name in by_column if name.partition(" ")[0] in (OFF_TOPIC, GENERAL)}
    asked = {name: by_column[name] for name in sorted(by_column.keys() - harmful, key=_place)}
    trained = {name: own for name, own in asked.items() if name not in PLAIN}
    return Summary(
        {name: _column(own) for name, own in asked.items()},
        {name: _differences(own, by_column.get(IN_CONTEXT)) for name, own in trained.items()},
        {name: _differences(own, by_column.get(FEW_SHOT)) for name, own in trained.items()},
        {name: _estimates(by_column[name], HARM) for name in sorted(harmful)},
        _harm_differences(by_column, harmful),
        [(unit.document, unit.column) for unit in units if unit.refused],
    )


def sums(units: Sequence[Unit], ratio: Ratio) -> Sums | None:
    """Of each question the mean over seeds. None where no question has both of the ratio."""
    tops: dict[str, list[float]] = {}
    bottoms: dict[str, list[float]] = {}
    for document in dict.fromkeys(unit.document for unit in units):
        rows = zip(*(unit.records for unit in units if unit.document == document), strict=True)
        pairs = [_pair(row, *ratio) for row in rows]
        tops[document], bottoms[document] = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return Sums(tops, bottoms) if any(any(row) for row in bottoms.values()) else None


def _pair(row: Sequence[Mapping[str, Any]], top: str, bottom: str) -> tuple[float, float]:
    """Of one question in all seeds. Without one of the two it weighs nothing."""
    needed = {top, bottom} - {ONE}
    if not all(needed <= record.keys() for record in row):
        return 0.0, 0.0
    over = statistics.fmean(record[bottom] for record in row) if bottom else 1.0
    return statistics.fmean(record[top] for record in row), over


def _column(units: Sequence[Unit]) -> Column:
    likelihood = sums(units, METRICS["nll"])
    documents = likelihood.top if likelihood else ()
    tokens = [record["prompt_tokens"] for unit in units for record in unit.records]
    return Column(
        _estimates(units, METRICS),
        {name: likelihood.restricted([name]).value() for name in documents} if likelihood else {},
        {name: statistics.fmean(unit.spent[name] for unit in units) for name in SPENT if name in units[0].spent},
        statistics.fmean(tokens) if tokens else None,
    )


def _estimates(units: Sequence[Unit], ratios: Mapping[str, Ratio]) -> dict[str, Estimate]:
    found = {name: sums(units, ratio) for name, ratio in ratios.items()}
    return {name: estimate(one) for name, one in found.items() if one}


def _differences(units: Sequence[Unit], context: Sequence[Unit] | None) -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for name in COMPARED if context else ():
        ours, theirs = sums(units, METRICS[name]), sums(context or (), METRICS[name])
        if ours and theirs and (one := difference(ours, theirs)):
            found[name] = one
    return found


def _harm_differences(by_column: Mapping[str, Sequence[Unit]], harmful: set[str]) -> dict[str, Estimate]:
    """Likelihood of off-topic answers with an adapter, less the base model's."""
    before = by_column.get(f"{OFF_TOPIC} {BASE}")
    found: dict[str, Estimate] = {}
    for name in sorted(harmful):
        if before and name.startswith(OFF_TOPIC) and name != f"{OFF_TOPIC} {BASE}":
            ours, theirs = sums(by_column[name], HARM["nll"]), sums(before, HARM["nll"])
            if ours and theirs and (one := difference(ours, theirs)):
                found[name] = one
    return found


def _place(column: str) -> tuple[int, str]:
    kinds = (*PLAIN, LIFT, HYBRID)
    return kinds.index(column if column in PLAIN else column.partition(" ")[0]), column


# ---- the files ----------------------------------------------------------------------------------------------------


def as_json(found: Summary, where: Mapping[str, Any], command: str, units: Sequence[Unit]) -> str:
    """The summary readable, then a line for each unit with all its questions."""
    head = json.dumps({"where": where, "command": command, **asdict(found)}, indent=1, ensure_ascii=False)
    lines = ",\n".join(json.dumps(_rounded(asdict(unit)), ensure_ascii=False) for unit in units)
    return f'{head.removesuffix("}").rstrip()},\n "units": [\n{lines}\n ]\n}}\n'


def tables(found: Summary) -> Iterator[str]:
    yield from _answers(found)
    yield from _against(found, IN_CONTEXT, found.differences)
    yield from _against(found, FEW_SHOT, found.few_shot_differences)
    yield from _by_document(found)
    yield from _harm(found)
    yield from _cost(found)


def _answers(found: Summary) -> Iterator[str]:
    names = [name for name in METRICS if any(name in column.metrics for column in found.columns.values())]
    if "nll" not in names:
        yield from ("Likelihoods are absent: a running server was asked, which does not tell them.", "")
    rows = (
        [name, _questions(column), *(_cell(column.metrics.get(n), n) for n in names)]
        for name, column in found.columns.items()
    )
    yield from table(("column", "questions", *(TITLES.get(name, name) for name in names)), rows)
    for document, column in found.refused:
        yield f"\n{column}: {document} does not fit the server's context window and is not in the row."


def _questions(column: Column) -> int:
    return max((one.count for one in column.metrics.values()), default=0)


def _against(found: Summary, baseline: str, differences: Mapping[str, Mapping[str, Estimate]]) -> Iterator[str]:
    rows = [(name, one) for name, one in differences.items() if one]
    if not rows:
        return
    yield from _section(f"Less {baseline}", "Paired: the same questions. An interval without 0 is a difference.")
    yield from table(
        ("column", *(TITLES.get(name, name) for name in COMPARED)),
        ([name, *(_cell(one.get(n), n, sign="+") for n in COMPARED)] for name, one in rows),
    )
    theirs = found.columns[baseline].documents
    yield ""
    for name, _ in rows:
        own = found.columns[name].documents
        below = sum(own[document] < theirs[document] for document in own if document in theirs)
        if own:
            yield f"{name}: likelier than {baseline} on {below} of {len(own)} documents.  "


def _by_document(found: Summary) -> Iterator[str]:
    columns = {name: column.documents for name, column in found.columns.items() if column.documents}
    if not columns:
        return
    yield from _section("By document", "NLL, mean over seeds.")
    documents = dict.fromkeys(document for own in columns.values() for document in own)
    rows = ([document, *(_number(own.get(document)) for own in columns.values())] for document in documents)
    yield from table(("document", *columns), rows)


def _harm(found: Summary) -> Iterator[str]:
    if not found.harm:
        return
    yield from _section(
        "No harm",
        "Off-topic: the next document's questions under this one's title. General: the base model's own replies to 20 "
        "instructions;\nKL (base to adapter) and NLL ratio per reply token, replies whose first 8 tokens stay. "
        "Says so: off-topic answers that\nsay the document does not say.",
    )
    before = found.harm.get(f"{OFF_TOPIC} {BASE}", {})
    rows: list[tuple[str, dict[str, Estimate], dict[str, Estimate], Estimate | None]] = []
    if before:
        rows.append(("base model", before, {}, None))
    for version in found.versions:
        off, general = (found.harm.get(f"{kind} {version}", {}) for kind in (OFF_TOPIC, GENERAL))
        rows.append((f"{LIFT} {version}", off, general, found.harm_differences.get(f"{OFF_TOPIC} {version}")))
    yield from table(
        ("column", "off-topic NLL", "less base", "says so", "general KL", "NLL ratio", "same start"),
        (
            [name, _cell(off.get("nll"), "nll"), _cell(less, "nll", sign="+"), _cell(off.get("refused"), "refused"),
             *(_cell(general.get(n), n) for n in ("kl", "nll_ratio", "same"))]
            for name, off, general, less in rows
        ),
    )  # fmt: skip


def _cost(found: Summary) -> Iterator[str]:
    yield from _section(
        "Spent",
        "Means over documents and seeds; prompt tokens per question. Seconds from the training's start, also those of\n"
        "a later version.",
    )
    yield from table(
        ("column", *SPENT.values(), "prompt tokens"),
        (
            [name, *(_count(column.spent.get(n)) for n in SPENT), _count(column.prompt_tokens)]
            for name, column in found.columns.items()
        ),
    )


def _section(title: str, words: str) -> Iterator[str]:
    yield from ("", f"## {title}", "", words, "")


def _cell(one: Estimate | None, name: str, sign: str = "") -> str | None:
    """Shares in percent, anything in nats with two decimals."""
    if one is None:
        return None
    scale, form = (1, ".2f") if name in ("nll", "kl", "nll_ratio") else (100, ".1f")
    unit = "" if scale == 1 else " %"
    value, low, high = (f"{number * scale:{sign}{form}}" for number in (one.value, one.low, one.high))
    return f"{value}{unit} [{low}, {high}]"


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f}"


def _count(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value
