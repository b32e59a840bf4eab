// The dialog for the API key: whose is in use, another one, none. In: a refusal, or the button in the bar. Out: the key
// in the tab's storage; `onChange`. What its holder may do with it is ownkey.js.

import { call, keyStore, onUnauthorized } from "./api.js";
import { button, el } from "./elements.js";
import { limitsOf } from "./limits.js";
import { problem } from "./notices.js";
import { OwnKey } from "./ownkey.js";

export class KeyDialog {
  #opener;
  #onChange;
  #field = el("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false" });
  #reason = el("p", { class: "problem", role: "alert", hidden: true });
  #limits = el("div");
  #own = new OwnKey({ replaced: (key) => this.#use(key), revoked: () => this.#close("") });
  #forget = button("Forget the key", () => this.#close(""));
  #dialog = el("dialog", { "aria-labelledby": "key-title" }, this.#form());

  constructor(opener, onChange) {
    this.#opener = opener;
    this.#onChange = onChange;
    document.body.append(this.#dialog);
    this.#dialog.addEventListener("close", () => this.#own.clear());
    opener.addEventListener("click", () => this.#open());
    onUnauthorized((refusal) => refusal.code === "invalid_api_key" && this.#open(refusal.message));
    this.#mark();
  }

  #form() {
    return el(
      "form",
      { onsubmit: (event) => { event.preventDefault(); this.#close(this.#given()); } },
      el("h2", { id: "key-title" }, "API key"),
      this.#reason,
      this.#limits,
      this.#own.element,
      el("label", { for: "key" }, "Key"),
      this.#field,
      el("p", { class: "hint" }, "Kept for this tab only, until you close it. ",
        "Keys are made where the server runs: ", el("code", {}, "lift-serve keys create NAME"), "."),
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
    this.#own.clear();
    this.#dialog.showModal();
    if (!why) this.#showLimits();
  }

  async #showLimits() {
    try {
      const mine = await call("/keys/me");
      this.#limits.replaceChildren(...limitsOf(mine));
      this.#own.show(Boolean(mine.id));
    } catch (error) {
      if (error.code !== "invalid_api_key") this.#limits.replaceChildren(problem(error)); // else it stands above
    }
  }

  // Left empty, the one in use stays: a new one may just have taken its place.
  #given() {
    return this.#field.value.trim() || keyStore.get();
  }

  #use(key) {
    keyStore.set(key);
    this.#mark();
  }

  #close(key) {
    this.#use(key);
    this.#dialog.close();
    this.#onChange();
  }

  #mark() {
    this.#opener.textContent = keyStore.get() ? "API key: in use" : "API key";
  }
}
