// The dialog for the API key: whose is in use, another one, none. In: a refusal, or the button in the bar. Out: the key
// in the tab's storage; `onChange`.

import { call, keyStore, onUnauthorized } from "./api.js";
import { button, el } from "./elements.js";
import { limitsOf } from "./limits.js";
import { problem } from "./notices.js";

export class KeyDialog {
  #opener;
  #onChange;
  #field = el("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false" });
  #reason = el("p", { class: "problem", role: "alert", hidden: true });
  #limits = el("div");
  #forget = button("Forget the key", () => this.#close(""));
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
      this.#limits,
      el("label", { for: "key" }, "Key"),
      this.#field,
      el("p", { class: "hint" }, "Kept for this tab only, until you close it. ",
        "Keys are made and revoked where the server runs: ", el("code", {}, "lift-serve keys create NAME"), "."),
      el("div", { class: "row end" }, this.#forget,
        button("Cancel", () => this.#dialog.close()),
        el("button", { type: "submit", class: "primary" }, "Use this key")),
    );
  }

  #open(why) {
    this.#reason.hidden = !why;
    this.#reason.textContent = why ?? "";
    if (this.#dialog.open) return;
    this.#field.value = "";
    this.#forget.hidden = !keyStore.get();
    this.#limits.replaceChildren();
    this.#dialog.showModal();
    if (!why) this.#showLimits();
  }

  async #showLimits() {
    try {
      this.#limits.replaceChildren(...limitsOf(await call("/keys/me")));
    } catch (error) {
      if (error.code !== "invalid_api_key") this.#limits.replaceChildren(problem(error)); // else it stands above
    }
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
