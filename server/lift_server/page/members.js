// What a set is made of. In: its documents' ids, and the list, which knows most of them. Out: a link to each, by name.

import { call } from "./api.js";
import { el, newId } from "./elements.js";
import { titleOf } from "./format.js";

export class Members {
  #known;
  #id = newId("members");
  #links = el("ul", { "aria-labelledby": this.#id });
  element = el("div", { class: "members", hidden: true },
    el("p", { class: "hint", id: this.#id }, "Made of these documents, and learned as work of its own:"), this.#links);

  constructor(known) {
    this.#known = known;
  }

  // Once: a set stays as it is.
  show(ids) {
    if (!ids || this.#links.hasChildNodes()) return;
    this.element.hidden = false;
    this.#links.append(...ids.map((id) => el("li", {}, this.#link(id))));
  }

  #link(id) {
    const shown = this.#known.get(id);
    const link = el("a", { href: `#${id}` }, shown ? titleOf(shown) : id);
    if (!shown) this.#name(id, link);
    return link;
  }

  async #name(id, link) {
    try {
      link.textContent = titleOf(await call(`/documents/${id}`));
    } catch {
      link.textContent = id; // it leads there all the same, where the reason is shown
    }
  }
}
