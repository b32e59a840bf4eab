// One question, three ways. In: a question and its document. Out: three answers side by side, asked one after the
// other so that their times can be compared, and drawn on one scale.

import { Answer } from "./answer.js";
import { el } from "./elements.js";
import { MODES } from "./format.js";

const COMPARED = ["adapter", "context", "hybrid"];

export function createComparison(bodyFor) {
  const answers = COMPARED.map((mode) => new Answer(`Mode ${MODES[mode].name}`));
  const columns = answers.map((answer, at) =>
    el("section", { class: "column" }, el("h3", {}, MODES[COMPARED[at]].name), answer.element));
  const element = el("div", { class: "comparison" }, ...columns);

  async function run(signal) {
    for (const [at, answer] of answers.entries()) await ask(at, answer, signal);
  }

  async function ask(at, answer, signal) {
    const body = bodyFor(COMPARED[at]);
    await answer.run(body, signal, null);
    rescale();
  }

  function rescale() {
    const length_s = Math.max(...answers.map((answer) => answer.length_s));
    for (const answer of answers) answer.draw(length_s);
  }

  return { element, run };
}
