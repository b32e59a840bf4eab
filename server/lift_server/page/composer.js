// Where a question is typed. In: nothing. Out: `onAsk(question)`, `onCompare(question)`, `onStop()`, and the mode.

import { button, el, newId } from "./elements.js";
import { MODES } from "./format.js";

export function createComposer({ onAsk, onCompare, onStop }) {
  const id = newId("question");
  const field = el("textarea", { id, rows: "2", enterkeyhint: "send", placeholder: "Ask something about the document" });
  const ask = el("button", { type: "submit", class: "primary" }, "Ask");
  const compare = button("Compare", () => send(onCompare), { title: "The same question from adapter, context and hybrid" });
  const stop = button("Stop", onStop, { hidden: true });
  const says = el("p", { class: "hint", id: `${id}-mode` });
  const radios = Object.entries(MODES).map(([mode, { name }]) => radio(mode, name));
  const modes = el("fieldset", { class: "modes", "aria-describedby": says.id }, el("legend", { class: "unseen" }, "Answer from"),
    ...radios.flat());
  const form = el("form", { class: "composer" }, el("label", { for: id, class: "unseen" }, "Your question"), field,
    el("div", { class: "row" }, modes, el("div", { class: "row end" }, stop, compare, ask)), says);

  function radio(mode, name) {
    const one = newId("mode");
    const input = el("input", { type: "radio", name: `${id}-mode-choice`, id: one, value: mode, class: "unseen", onchange: explain });
    return [input, el("label", { for: one }, name)];
  }

  function mode() {
    return modes.querySelector("input:checked").value;
  }

  function explain() {
    says.textContent = MODES[mode()].says;
  }

  function send(to) {
    const question = field.value.trim();
    if (!question) return field.focus();
    if (!stop.hidden) return undefined; // an answer is under way; what is typed stays
    field.value = "";
    return to(question);
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send(onAsk);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send(onAsk);
  });
  modes.querySelector("input").checked = true;
  explain();

  // While an answer is under way there is Stop in place of the others.
  function busy(isBusy) {
    const hadFocus = form.contains(document.activeElement);
    stop.hidden = !isBusy;
    ask.hidden = compare.hidden = isBusy;
    if (hadFocus) field.focus();
  }

  return { element: form, mode, busy };
}
