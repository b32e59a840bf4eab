// What in the document speaks for or against an answer. In: the `lift` of an answer that was asked with evidence. Out:
// an element; null where none was asked for.

import { el } from "./elements.js";

const VERDICTS = {
  supports: "Supports the answer",
  contradicts: "Contradicts the answer",
  unclear: "May be about it",
};

export function evidenceOf({ evidence, evidence_error }) {
  if (evidence === undefined) return null;
  return el("details", { class: "evidence", open: true }, el("summary", {}, "What the document says"),
    ...found(evidence, evidence_error));
}

function found(evidence, error) {
  if (!evidence) return [el("p", { class: "hint" }, `It could not be searched. ${error.message}`)];
  if (!evidence.length) return [el("p", { class: "hint" }, "Nothing in it shares a word with question or answer.")];
  return [
    el("ol", {}, ...evidence.map(item)),
    el("p", { class: "hint" }, "A hint, not a proof: compared by the base model, sentence by sentence."),
  ];
}

function item({ text, verdict, heading, page }) {
  const place = [page && `Page ${page}`, heading?.replace(/:$/, "")].filter(Boolean).join(" · ");
  return el("li", { "data-verdict": verdict },
    el("p", { class: "place" }, el("strong", {}, VERDICTS[verdict] ?? verdict), place && ` · ${place}`),
    el("blockquote", {}, text));
}
