// The dialog for the API key. In: a refusal, or the button in the bar. Out: the key in the tab's storage; `onChange`.

import { keyStore, onUnauthorized } from "./api.js";
import { button, el } from "./elements.js";

export class KeyDialog {
  #opener;
  #onChange;
  #field = el("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false" });
  #reason = el("p", { class: "problem", role: "alert", hidden: true });
  #dialog = el("dialog", { "aria-labelledby": "key-title" }, this.#form());

  constructor(opener, onChange) {
    this.#opener = opener;
    this.#onChange = onChange;
    document.body.append(this.#dialog);
    opener.addEventListener("click", () => this.#open());
    onUnauthorized((refusal) => refusal.code === "invalid_api_key" && this.#open(refusal.message));
    this.#mark();
  }

  #form() {
    return el(
      "form",
      { onsubmit: (event) => { event.preventDefault(); this.#close(this.#field.value.trim()); } },
      el("h2", { id: "key-title" }, "API key"),
      this.#reason,
      el("label", { for: "key" }, "Key"),
      this.#field,
      el("p", { class: "hint" }, "Kept for this tab only, until you close it. ",
        "Keys are made and revoked where the server runs: ", el("code", {}, "lift-serve keys create NAME"), "."),
      el("div", { class: "row end" }, button("Forget the key", () => this.#close("")),
        button("Cancel", () => this.#dialog.close()),
        el("button", { type: "submit", class: "primary" }, "Use this key")),
    );
  }

  #open(why) {
    this.#reason.hidden = !why;
    this.#reason.textContent = why ?? "";
    if (this.#dialog.open) return;
    this.#field.value = "";
    this.#dialog.showModal();
  }

  #close(key) {
    keyStore.set(key);
    this.#mark();
    this.#dialog.close();
    this.#onChange();
  }

  #mark() {
    this.#opener.textContent = keyStore.get() ? "API key: in use" : "API key";
  }
}
