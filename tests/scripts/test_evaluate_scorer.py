"""scripts/evaluate_scorer.py against a tiny random Llama: side by side is what one after the other would be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.lift_workers.tiny import save_tiny_model
from transformers import AutoModelForCausalLM

from evaluate_harm import REPLY_TOKENS, General, instructions
from evaluate_scorer import Scorer, groups

LIMIT = 6
QUESTIONS = ["Who?", "Where is the long one?", "Why?", "When was that?"]
ENDINGS = [["Ann", "Bob and Carl"], ["x"], [], ["1987", "y", "never ever"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def adapter(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With weights of its own, so that it changes what is said."""
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(folder)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    path = tmp_path_factory.mktemp("adapter")
    get_peft_model(base, config).save_pretrained(path)
    return path


@pytest.fixture
def scorer(folder: Path) -> Scorer:
    return Scorer(str(folder), "float32")


def prompts(scorer: Scorer, text: str | None) -> list[list[int]]:
    return [scorer.prompt("Log", question, text) for question in QUESTIONS]


def endings(scorer: Scorer) -> list[list[list[int]]]:
    return [[scorer.tokens(ending) for ending in own] for own in ENDINGS]


def alone(model: Any, prompt: Sequence[int], own: Sequence[Sequence[int]]) -> tuple[list[float], list[int]]:
    """By transformers itself: a pass for each ending, generate() for the answer."""
    nll = []
    for ending in own:
        ids = torch.tensor([[*prompt, *ending]])
        with torch.inference_mode():
            logits = model(ids).logits[0, len(prompt) - 1 : -1]
        nll.append(float(torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :], reduction="sum")))
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=LIMIT, do_sample=False, pad_token_id=1
    )
    return nll, [token for token in out[0, len(prompt) :].tolist() if token != 1]


@pytest.mark.parametrize("text", [None, "A text in the prompt. " * 20])
def test_side_by_side_is_one_by_one(scorer: Scorer, folder: Path, text: str | None) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = scorer.answers(prompts(scorer, text), endings(scorer), LIMIT)
    for one, prompt, own in zip(found, prompts(scorer, text), endings(scorer), strict=True):
        nll, said = alone(model, prompt, own)
        assert [value for value, _ in one.likelihoods] == pytest.approx(nll, rel=1e-4)
        assert [tokens for _, tokens in one.likelihoods] == [len(ending) for ending in own]
        assert one.said == said


def test_groups_of_one_give_the_same(scorer: Scorer, folder: Path) -> None:
    together = scorer.answers(prompts(scorer, None), endings(scorer), LIMIT)
    single = Scorer(str(folder), "float32", group_tokens=1).answers(prompts(scorer, None), endings(scorer), LIMIT)
    assert [one.said for one in together] == [one.said for one in single]
    for one, other in zip(together, single, strict=True):
        assert [nll for nll, _ in one.likelihoods] == pytest.approx([nll for nll, _ in other.likelihoods], rel=1e-4)


def test_an_adapter_speaks_only_within_its_block(scorer: Scorer, adapter: Path) -> None:
    def nll() -> float:
        return scorer.answers(prompts(scorer, None), endings(scorer), 0)[0].likelihoods[0][0]

    before = nll()
    with scorer.adapter(adapter):
        within = nll()
    assert within != pytest.approx(before, rel=1e-3)
    assert nll() == before


def test_logits_are_those_that_likelihoods_come_from(scorer: Scorer) -> None:
    golds = [scorer.tokens(text) for text in ("Ann", "x", "seven", "1987")]
    found = scorer.answers(prompts(scorer, None), [[gold] for gold in golds], 0)
    for one, logits, gold in zip(found, scorer.logits(prompts(scorer, None), golds), golds, strict=True):
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(gold), reduction="sum")
        assert one.likelihoods[0][0] == pytest.approx(float(nll), rel=1e-5)
        assert one.said == []


def test_groups_hold_their_limit_or_one_of_more() -> None:
    assert list(groups([3, 4, 9, 1, 2, 4], 7)) == [[0, 1], [2], [3, 4, 5]]


def test_no_adapter_does_no_harm_and_a_random_one_does(scorer: Scorer, adapter: Path) -> None:
    general = General(scorer, instructions()[:4])
    same = general.records()
    assert all(one["kl"] == pytest.approx(0.0, abs=1e-4) and one["same"] == 1.0 for one in same)
    assert all(one["nll"] == pytest.approx(one["base_nll"]) and 0 <= one["tokens"] <= REPLY_TOKENS for one in same)
    with scorer.adapter(adapter):
        moved = general.records()
    assert sum(one["kl"] for one in moved) > 0.1
    assert [one["base_nll"] for one in moved] == pytest.approx([one["base_nll"] for one in same])
