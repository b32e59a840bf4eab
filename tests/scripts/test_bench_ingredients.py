"""scripts/bench_ingredients.py: windows of a hand-made text, forms of a gap, the budget, the teacher's loss."""

from array import array
from collections.abc import Iterator

import pytest
import torch
from tests.lift_workers.tiny import save_tiny_model

from bench_ingredients import (
    REFERENCE,
    VARIANTS,
    Outcome,
    SoftTrainer,
    Variant,
    blanked,
    blended_loss,
    matched,
    outcomes,
    summary,
    train,
    windows,
)
from evaluate_scorer import Scorer
from lift_config.recipe import load_recipes
from lift_config.segment import Segment
from lift_workers.cover import cloze
from lift_workers.encode import TrainingExample, pack
from lift_workers.synthesize import SyntheticTask

BUDGET = 600
PARAGRAPHS = [
    "Edda Holm built the lighthouse of Skarn in 1874. The lamp was lit by hand for the first forty years.",
    "The keeper of the lighthouse had a dog, Brisket. It was buried beside the lamp in 1874 words of snow.",
    "A railway reached the island later.",
]
QA = [
    {"question": "When did Holm build it?", "answers": ["1874"]},
    {"question": "What was the keeper's dog called?", "answers": ["brisket"]},
    {"question": "How much snow beside the lamp?", "answers": ["1874"]},
    {"question": "Who came from abroad?", "answers": ["Nobody"]},
]
LONG = {
    "doc_id": "log-1",
    "title": "Log",
    "text": "\n\n".join(paragraph + " Waves and wind." * 150 for paragraph in PARAGRAPHS),
    "qa": QA + [{"question": "Who built the lighthouse?", "answers": ["Edda Holm"]}] * 2,
}
SHORT = {"doc_id": "log-2", "title": "Log", "text": "\n\n".join(PARAGRAPHS), "qa": QA[:3]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def trainer(model: str) -> Iterator[SoftTrainer]:
    trainer = SoftTrainer(model, revision=None, device="cpu", dtype=torch.float32)
    trainer.share_cores(True)  # a busy machine makes threads wait for each other longer than they compute
    yield trainer
    trainer.share_cores(False)


@pytest.fixture(scope="module")
def scorer(model: str) -> Scorer:
    return Scorer(model, "float32")


def test_a_question_belongs_to_the_paragraph_with_its_answer_and_its_rare_words() -> None:
    assert matched(PARAGRAPHS, QA) == {0: [QA[0]], 1: [QA[1], QA[2]]}


def test_a_document_gives_its_window_with_the_most_questions() -> None:
    other = LONG | {"doc_id": "story-1"}
    [window] = windows([other, SHORT, LONG], "log-", 1)
    assert (window["doc_id"], window["text"]) == ("log-1", LONG["text"].split("\n\n")[0])
    assert window["qa"] == [QA[0], *LONG["qa"][-2:]]
    with pytest.raises(ValueError, match="1 documents"):
        windows([other, SHORT, LONG], "log-", 2)


def test_a_blank_in_the_clause_and_in_the_whole_segment() -> None:
    one = Segment(3, "In 1809, the keeper what or who knows said so, and 9 dogs were 1809 years old", "")
    task = SyntheticTask(3, "And 9 dogs were which year years old?", "1809", (16, 26))
    clause = blanked(one, task, False)
    assert (clause.question, clause.answer) == ("Fill in the blank: and 9 dogs were ____ years old", "1809")
    assert clause.stand_in is not None
    assert clause.question[slice(*clause.stand_in)] == "____"
    whole = blanked(one, task, True).question
    assert whole == f"Fill in the blank: {one.text[:63]}____ years old"
    assert one.text[63:67] == "1809"


@pytest.mark.parametrize("text", [*PARAGRAPHS, "Hohe Wellen, starker Wind, und Erna Holm war 1874 dort", "Skarn, Holm"])
def test_every_gap_of_the_product_is_found_again(text: str) -> None:
    one = Segment(0, text, "")
    tasks = cloze(one, 8)
    assert tasks
    for task in tasks:
        whole = blanked(one, task, True)
        assert whole.question.removeprefix("Fill in the blank: ").replace("____", task.answer) == text


@pytest.mark.parametrize("name", [REFERENCE, "recite only", "clause, question, prompt 1, soft labels"])
def test_a_variant_spends_the_budget_and_no_step_more(name: str, scorer: Scorer, trainer: SoftTrainer) -> None:
    largest = 4 * load_recipes()["balanced"].tokens_per_step  # of a batch: session.py's MAX_PADDED
    tokens, steps = train(SHORT, VARIANTS[name], scorer, trainer, BUDGET)
    assert BUDGET <= tokens < BUDGET + largest
    assert steps > 1


def test_nothing_to_train_is_an_error(scorer: Scorer, trainer: SoftTrainer) -> None:
    with pytest.raises(ValueError, match="nothing"):
        train(SHORT, Variant(gaps=0), scorer, trainer, BUDGET)


def test_a_teacher_and_the_prompts_weight_change_what_is_learned(scorer: Scorer, trainer: SoftTrainer) -> None:
    learned = []
    for variant in (Variant(), Variant(), Variant(is_soft=True), Variant(prompt_loss_weight=1), Variant(quotes=True)):
        train(SHORT, variant, scorer, trainer, BUDGET)
        learned.append(trainer.adapter.weights.detach().clone())
    assert torch.equal(learned[0], learned[1])
    assert not torch.equal(learned[0], learned[2])
    assert not torch.equal(learned[0], learned[3])
    assert not torch.equal(learned[0], learned[4])


def test_a_teacher_that_is_sure_of_the_label_is_cross_entropy() -> None:
    torch.manual_seed(0)
    example = TrainingExample(array("i", [1, 2, 5, 6]), array("i", [3, 1, 4]), range(2, 4))
    packed = pack([example], prompt_loss_weight=0.7)  # three rows of the answer, then two of the question
    logits_AV = torch.randn(5, 7)
    each_A = torch.nn.functional.cross_entropy(logits_AV, packed.labels_A, reduction="none")
    hard = float(each_A @ packed.weights_A)
    sure_TV = torch.nn.functional.one_hot(packed.labels_A[:3].long(), 7).float()
    assert float(blended_loss(logits_AV, sure_TV, packed, 0.5)) == pytest.approx(hard)
    agreeing_TV = logits_AV[:3].softmax(-1)
    questions_own = float(each_A[3:] @ packed.weights_A[3:])
    assert float(blended_loss(logits_AV, agreeing_TV, packed, 1.0)) == pytest.approx(questions_own)


def test_closed_book_and_in_context_come_first_and_are_not_the_same(scorer: Scorer, trainer: SoftTrainer) -> None:
    rows = outcomes([SHORT], scorer, trainer, 300)
    found = dict([next(rows), next(rows), next(rows)])
    assert list(found) == ["closed book", "in context", REFERENCE]
    assert len({outcome.sums().value() for outcome in found.values()}) == 3


def test_a_summary_pools_tokens_and_compares_with_the_reference() -> None:
    one, two = {"nll": 6.0, "tokens": 2, "contained": 1.0}, {"nll": 4.0, "tokens": 4, "contained": 0.0}
    better = one | {"nll": 4.0}
    found = {"plain": Outcome({"a": [one], "b": [two]}), REFERENCE: Outcome({"a": [better], "b": [two]}, 20, 4)}
    plain, reference = summary(found).values()
    assert (plain["nll"], plain["mean_over_windows"], plain["contained"]) == (10 / 6, 2.0, 1)
    assert plain["less_reference"]["value"] == pytest.approx(2 / 6)
    assert (reference["less_reference"], reference["tokens_a_window"], reference["steps_a_window"]) == (None, 10, 2)
    assert summary({"plain": found["plain"]})["plain"]["less_reference"] is None
