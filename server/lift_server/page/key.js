// The dialog for the API key. In: a refusal, or the button in the bar. Out: the key in this tab's storage, and `onChange`.

import { keyStore, onUnauthorized } from "./api.js";
import { button, el } from "./elements.js";

export function setUpKey(opener, onChange) {
  const field = el("input", { id: "key", type: "password", autocomplete: "off", spellcheck: "false" });
  const reason = el("p", { class: "problem", role: "alert", hidden: true });
  const dialog = el("dialog", { "aria-labelledby": "key-title" }, form());
  document.body.append(dialog);

  function form() {
    const use = (event) => {
      event.preventDefault();
      close(field.value.trim());
    };
    return el(
      "form",
      { onsubmit: use },
      el("h2", { id: "key-title" }, "API key"),
      reason,
      el("label", { for: "key" }, "Key"),
      field,
      el("p", { class: "hint" }, "Kept for this tab only, until you close it. Keys are made and revoked where the server runs: ",
        el("code", {}, "lift-serve keys create NAME"), "."),
      el("div", { class: "row end" }, button("Forget the key", () => close("")), button("Cancel", () => dialog.close()),
        el("button", { type: "submit", class: "primary" }, "Use this key")),
    );
  }

  function open(why) {
    reason.hidden = !why;
    reason.textContent = why ?? "";
    if (dialog.open) return;
    field.value = "";
    dialog.showModal();
  }

  function close(key) {
    keyStore.set(key);
    mark();
    dialog.close();
    onChange();
  }

  function mark() {
    opener.textContent = keyStore.get() ? "API key: in use" : "API key";
  }

  opener.addEventListener("click", () => open());
  onUnauthorized((refusal) => refusal.code === "invalid_api_key" && open(refusal.message));
  mark();
}
