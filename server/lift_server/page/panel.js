// One document: what it is, how it is learned, what can be done with it, the conversation about it. In: the document
// object at each change. Out: an element that stays, with all that was typed and said in it, while others are shown.

import { call } from "./api.js";
import { createConversation } from "./chat.js";
import { confirmed } from "./confirm.js";
import { chip } from "./documents.js";
import { download } from "./downloads.js";
import { button, el } from "./elements.js";
import { bytes, count, titleOf } from "./format.js";
import { createLearning } from "./learning.js";
import { problem } from "./notices.js";
import { codeDetails, uploadSnippets } from "./snippets.js";

export function createPanel(id, { modelName, onDocument, onDeleted }) {
  const heading = el("h2", { tabindex: "-1" });
  const status = el("span");
  const facts = el("span", { class: "hint" });
  const trouble = el("div"); // of what was done here
  const connection = el("div"); // of watching; gone with the next change
  const learning = createLearning();
  const conversation = createConversation(id, modelName);
  const stop = button("Stop learning", () => act(async () => onDocument(await call(path("/cancel"), { method: "POST" }))));
  const adapter = button("Download adapter", () => act(() => download(path("/adapter"), `${id}-v${shown.adapter.version}.tar`)));
  const original = button("Download original", () => act(() => download(path("/content"), shown.filename ?? `${id}.txt`)));
  let shown = null;

  const path = (rest) => `/documents/${id}${rest}`;

  async function act(what) {
    trouble.replaceChildren();
    try {
      await what();
    } catch (error) {
      trouble.replaceChildren(problem(error, () => act(what)));
    }
  }

  async function remove() {
    const isWanted = await confirmed({
      title: `Delete “${titleOf(shown)}”?`,
      text: "The document, what was learned of it and this conversation go. This cannot be undone.",
      action: "Delete it",
    });
    if (isWanted) await act(deleteIt);
  }

  async function deleteIt() {
    await call(path(""), { method: "DELETE" });
    onDeleted();
  }

  function show(given) {
    shown = given;
    connection.replaceChildren();
    heading.textContent = titleOf(given);
    status.replaceChildren(chip(given));
    facts.textContent = factsOf(given);
    stop.hidden = !given.unfinished;
    adapter.hidden = !given.adapter;
    learning.show(given);
  }

  const element = el(
    "article",
    { class: "document" },
    el("header", {}, el("div", { class: "title" }, heading, status), facts,
      el("div", { class: "row actions" }, stop, original, adapter, button("Delete", remove, { class: "danger" }))),
    trouble,
    connection,
    learning.element,
    codeDetails("Code that uploads this document", () => uploadSnippets(shown)),
    conversation.element,
  );
  return {
    element,
    show,
    focus: () => heading.focus(),
    fail: (error) => connection.replaceChildren(problem(error)),
    close: conversation.stop,
  };
}

function factsOf({ title, filename, bytes: size, tokens, adapter }) {
  const parts = [title && filename, bytes(size), tokens > 0 && count(tokens, "token")];
  if (adapter) parts.push(`version ${adapter.version} (${adapter.recipe}, rank ${adapter.rank}, ${bytes(adapter.bytes)}) answers`);
  return parts.filter(Boolean).join(" · ");
}
