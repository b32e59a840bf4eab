// What a document is learned with. In: the object of /learning, again and again. Out: the newest tasks, newest first,
// each with the page and heading it is about where there are such, and the loss; nothing where there is neither.

import { curve } from "./curve.js";
import { el, newId } from "./elements.js";

export class Lessons {
  #id = newId("tasks");
  #loss = el("div");
  #list = el("ul", { class: "tasks", tabindex: "0", "aria-labelledby": this.#id });
  #tasks = el("div", {}, el("h3", { id: this.#id }, "Newest practice questions"), this.#list);
  #told = "";
  element = el("div", { class: "lessons", hidden: true }, this.#tasks, this.#loss);

  show({ tasks, losses }) {
    this.element.hidden = !tasks.length && !losses.length;
    this.#tasks.hidden = !tasks.length;
    this.#loss.replaceChildren(...[curve(losses)].filter(Boolean));
    const told = JSON.stringify(tasks);
    if (told === this.#told) return; // what somebody reads or selects stays as it is
    this.#told = told;
    this.#list.replaceChildren(...tasks.toReversed().map(item));
  }
}

function item({ question, answer, heading, page }) {
  const place = [page && `Page ${page}`, heading?.replace(/:$/, "")].filter(Boolean).join(" · ");
  return el("li", {}, el("p", {}, el("span", { class: "unseen" }, "Question: "), question),
    el("p", { class: "answered" }, el("span", { class: "unseen" }, "Answer: "), answer),
    Boolean(place) && el("p", { class: "place" }, el("span", { class: "unseen" }, "From: "), place));
}
