// One question, three ways. In: a question and its document. Out: three answers side by side, asked one after the
// other so that their times can be compared, and drawn on one scale. First from the text, which need not be learned.

import { Answer } from "./answer.js";
import { el } from "./elements.js";
import { MODES } from "./format.js";

const COMPARED = ["context", "adapter", "hybrid"];

// `during` runs `work(signal)` while nothing else is asked.
export function createComparison(bodyFor, during) {
  const answers = COMPARED.map(unasked);
  const columns = answers.map((answer, at) =>
    el("section", { class: "column" }, el("h3", {}, MODES[COMPARED[at]].name), answer.element));
  const element = el("div", { class: "comparison" }, ...columns);

  async function run(signal) {
    for (const at of answers.keys()) await ask(at, signal);
  }

  async function ask(at, signal) {
    const again = () => during((signalOfAgain) => {
      const failed = answers[at];
      answers[at] = unasked(COMPARED[at]);
      failed.element.replaceWith(answers[at].element);
      return ask(at, signalOfAgain);
    });
    await answers[at].run(bodyFor(COMPARED[at]), signal, again);
    rescale();
  }

  function rescale() {
    const length_s = Math.max(...answers.map((answer) => answer.length_s));
    for (const answer of answers) answer.draw(length_s);
  }

  return { element, run };
}

function unasked(mode) {
  return new Answer(`Mode ${MODES[mode].name}`);
}
