// Where a question is typed. In: nothing. Out: `on.ask(question)`, `on.compare(question)`, `on.stop()`, and `lift`, how
// it is to be answered.

import { button, el, newId } from "./elements.js";
import { MODES } from "./format.js";

export class Composer {
  #id = newId("question");
  #on;
  #field = el("textarea", { id: this.#id, rows: "2", enterkeyhint: "send", placeholder: "Ask about the document" });
  #ask = el("button", { type: "submit", class: "primary" }, "Ask");
  #compare = button("Compare", () => this.#send(this.#on.compare), { title: "Adapter, context, hybrid side by side" });
  #stop = button("Stop", () => this.#on.stop(), { hidden: true });
  #evidence = el("input", { type: "checkbox" });
  #check = el("label", { class: "check" }, this.#evidence, "Find it in the document");
  #says = el("p", { class: "hint", id: `${this.#id}-mode` });
  #modes = el("fieldset", { class: "modes", "aria-describedby": this.#says.id },
    el("legend", { class: "unseen" }, "Answer from"));

  constructor(on) {
    this.#on = on;
    this.#modes.append(...Object.keys(MODES).flatMap((mode) => this.#radio(mode)));
    this.#modes.querySelector("input").checked = true;
    this.#explain();
    this.element = el("form", { class: "composer", onsubmit: (event) => this.#submit(event) },
      el("label", { for: this.#id, class: "unseen" }, "Your question"), this.#field,
      el("div", { class: "row" }, this.#modes, this.#check,
        el("div", { class: "row end" }, this.#stop, this.#compare, this.#ask)),
      this.#says);
    this.#field.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) this.#submit(event);
    });
  }

  get mode() {
    return this.#modes.querySelector("input:checked").value;
  }

  // The `lift` of the next question.
  get lift() {
    return this.#evidence.checked ? { mode: this.mode, evidence: true } : { mode: this.mode };
  }

  // While an answer is under way there is Stop in place of the others.
  busy(isBusy) {
    const hadFocus = this.element.contains(document.activeElement);
    this.#stop.hidden = !isBusy;
    this.#ask.hidden = this.#compare.hidden = isBusy;
    if (hadFocus) this.#field.focus();
  }

  #radio(mode) {
    const id = newId("mode");
    const onchange = () => this.#explain();
    const name = `${this.#id}-mode-choice`;
    const input = el("input", { type: "radio", name, id, value: mode, class: "unseen", onchange });
    return [input, el("label", { for: id }, MODES[mode].name)];
  }

  #explain() {
    this.#says.textContent = MODES[this.mode].says;
  }

  #submit(event) {
    event.preventDefault();
    this.#send(this.#on.ask);
  }

  #send(to) {
    const question = this.#field.value.trim();
    if (!question) this.#field.focus();
    else if (this.#stop.hidden) { // else an answer is under way; what is typed stays
      this.#field.value = "";
      to(question);
    }
  }
}
