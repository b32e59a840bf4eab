// Several documents to be asked as one. In: the documents of the list as they are shown, and which of them are chosen.
// Out: a box to choose each by, and below the list what is chosen and the way on: `onSet` with the set, a document that
// is trained over all their texts, made where there is none yet.

import { call } from "./api.js";
import { button, el } from "./elements.js";
import { count, isSet, titleOf } from "./format.js";
import { announce, problem } from "./notices.js";

const FEWEST = 2;
const MOST = 32; // the server's limit

export class Together {
  #known;
  #onSet;
  #chosen = new Set(); // ids; the list may be loaded anew meanwhile
  #says = el("p");
  #go = button("Ask them together", () => this.#open(), { class: "primary" });
  #trouble = el("div");
  element = el("div", { class: "together", role: "group", "aria-label": "Chosen documents", hidden: true },
    this.#says,
    el("p", { class: "hint" }, "They are learned as one more document: work of its own, over all their texts."),
    el("div", { class: "row" }, this.#go, button("Choose none", () => this.#clear())), this.#trouble);

  // `known`: the documents of the list.
  constructor(known, onSet) {
    this.#known = known;
    this.#onSet = onSet;
  }

  // Beside a document's link; a set cannot be part of another one.
  box(shown) {
    if (isSet(shown)) return el("span", { class: "choice set" });
    const box = el("input", { type: "checkbox", class: "choice", "aria-label": `Choose ${titleOf(shown)}`,
      onchange: () => this.#choose(shown.id, box.checked) });
    box.checked = this.#chosen.has(shown.id);
    return box;
  }

  // Only these are there.
  keep(ids) {
    for (const id of [...this.#chosen].filter((one) => !ids.includes(one))) this.#chosen.delete(id);
    this.#show();
  }

  #choose(id, isChosen) {
    if (isChosen) this.#chosen.add(id);
    else this.#chosen.delete(id);
    this.#trouble.replaceChildren();
    this.#show();
    announce(this.#says.textContent);
  }

  #clear() {
    const [first] = document.querySelectorAll("input.choice:checked");
    for (const box of document.querySelectorAll("input.choice:checked")) box.checked = false;
    this.#chosen.clear();
    this.#trouble.replaceChildren();
    first?.focus(); // the button that had the focus goes
    this.#show();
  }

  #show() {
    const size = this.#chosen.size;
    const advice = size < FEWEST ? " Choose one more to ask them together." : size > MOST ? ` At most ${MOST}.` : "";
    this.element.hidden = !size;
    this.#says.textContent = `${count(size, "document")} chosen.${advice}`;
    this.#go.disabled = size < FEWEST || size > MOST;
  }

  async #open() {
    const ids = [...this.#chosen];
    this.#go.disabled = true; // once is enough
    this.#trouble.replaceChildren();
    try {
      const shown = this.#made(ids) ?? (await call("/documents", { method: "POST", json: { document_ids: ids } }));
      this.#clear();
      announce(`${titleOf(shown)}: asked together.`);
      this.#onSet(shown);
    } catch (error) {
      this.#show();
      this.#trouble.replaceChildren(problem(error, () => this.#open()));
    }
  }

  // A set is younger than its documents, so where they are in the list it is too; questions go to the newest as well.
  // One that failed or was stopped is wanted anew.
  #made(ids) {
    const isOfThese = ({ document_ids: of }) => of?.length === ids.length && ids.every((id) => of.includes(id));
    const isGood = ({ status }) => status !== "failed" && status !== "cancelled";
    const found = this.#known().filter((one) => isOfThese(one) && isGood(one));
    return found.toSorted((one, other) => other.created_at - one.created_at)[0];
  }
}
