// What a key's holder may do with it: have another one in its place, or end it. In: whether a key is in use. Out: the
// new key, to be kept, shown until the dialog closes; `on.replaced(key)`, `on.revoked()`.

import { call } from "./api.js";
import { confirmed } from "./confirm.js";
import { button, el } from "./elements.js";
import { announce, problem } from "./notices.js";
import { copied } from "./snippets.js";

const REPLACE = {
  title: "Replace this key?",
  text: "You get a new one, shown once. The one in use is refused from then on, wherever else it is used. " +
    "Documents, name and limits stay. Once an hour.",
  action: "Replace it",
};
const REVOKE = {
  title: "Revoke this key?",
  text: "It is refused from now on, here and wherever else it is used. Documents stay; who runs the server can make " +
    "another key for them. This cannot be undone.",
  action: "Revoke it",
};

export class OwnKey {
  #on;
  #fresh = el("div", { class: "fresh" });
  #trouble = el("div");
  element = el("div", { class: "own", hidden: true },
    el("div", { class: "row" }, button("Replace this key", () => this.#sure(REPLACE, () => this.#replace())),
      button("Revoke this key", () => this.#sure(REVOKE, () => this.#revoke()), { class: "danger" })),
    this.#trouble, this.#fresh);

  constructor(on) {
    this.#on = on;
  }

  show(isInUse) {
    this.element.hidden = !isInUse;
  }

  clear() {
    this.show(false);
    this.#fresh.replaceChildren();
    this.#trouble.replaceChildren();
  }

  async #sure(words, act) {
    if (!(await confirmed(words))) return;
    this.#trouble.replaceChildren();
    try {
      await act();
    } catch (error) {
      if (error.code !== "invalid_api_key") this.#trouble.replaceChildren(problem(error)); // else the dialog says so
    }
  }

  async #replace() {
    const { key } = await call("/keys/me/replace", { method: "POST" });
    this.#on.replaced(key);
    const code = el("code", { tabindex: "0" }, key);
    const copy = button("Copy", () => copied(copy, code), { "aria-label": "Copy the new key" });
    this.#fresh.replaceChildren(
      el("p", {}, el("strong", {}, "The new key. "), "This tab uses it already. It is shown this once: copy it now."),
      el("div", { class: "row" }, code, copy));
    code.focus();
    announce("The key is replaced.");
  }

  async #revoke() {
    await call("/keys/me", { method: "DELETE" });
    announce("The key is revoked.");
    this.#on.revoked();
  }
}
