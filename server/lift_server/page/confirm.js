// A question before something that cannot be undone. In: its words. Out: a promise of yes (true) or no.

import { button, el, newId } from "./elements.js";

export function confirmed({ title, text, action }) {
  return new Promise((resolve) => {
    const id = newId("confirm");
    const answer = (yes) => () => dialog.close(yes ? "yes" : "");
    const dialog = el(
      "dialog",
      { "aria-labelledby": id, onclose: () => { resolve(dialog.returnValue === "yes"); dialog.remove(); } },
      el("h2", { id }, title),
      el("p", {}, text),
      el("div", { class: "row end" }, button("Keep it", answer(false), { autofocus: true }),
        button(action, answer(true), { class: "danger" })),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}
