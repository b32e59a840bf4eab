// One document: what it is, how it is learned, what can be done with it, the conversation about it. In: the document
// object at each change. Out: an element that stays, with all that was typed and said in it, while others are shown.

import { call } from "./api.js";
import { Conversation } from "./chat.js";
import { confirmed } from "./confirm.js";
import { chip } from "./documents.js";
import { download } from "./downloads.js";
import { button, el } from "./elements.js";
import { bytes, count, titleOf } from "./format.js";
import { Learning } from "./learning.js";
import { problem } from "./notices.js";
import { codeDetails, uploadSnippets } from "./snippets.js";

export class Panel {
  #id;
  #on;
  #shown = null;
  #heading = el("h2", { tabindex: "-1" });
  #status = el("span");
  #facts = el("span", { class: "hint" });
  #trouble = el("div"); // of what was done here
  #connection = el("div"); // of watching; gone with the next change
  #learning = new Learning();
  #conversation;
  #stop = button("Stop learning", () => this.#act(() => this.#cancel()));
  #original = button("Download original", () => this.#act(() => this.#downloadOriginal()));
  #adapter = button("Download adapter", () => this.#act(() => this.#downloadAdapter()));

  // `on`: `modelName`, `document` (it changed by what was done here), `deleted`.
  constructor(id, on) {
    this.#id = id;
    this.#on = on;
    this.#conversation = new Conversation(id, on.modelName);
    this.element = this.#built();
  }

  show(given) {
    this.#shown = given;
    this.#connection.replaceChildren();
    this.#heading.textContent = titleOf(given);
    this.#status.replaceChildren(chip(given));
    this.#facts.textContent = factsOf(given);
    this.#stop.hidden = !given.unfinished;
    this.#adapter.hidden = !given.adapter;
    this.#learning.show(given);
  }

  showLessons(told) {
    this.#learning.showLessons(told);
  }

  focus() {
    this.#heading.focus();
  }

  fail(error) {
    this.#connection.replaceChildren(problem(error));
  }

  close() {
    this.#conversation.stop();
  }

  #built() {
    const remove = button("Delete", () => this.#askAndDelete(), { class: "danger" });
    const actions = [this.#stop, this.#original, this.#adapter, remove];
    return el(
      "article",
      { class: "document" },
      el("header", {}, el("div", { class: "title" }, this.#heading, this.#status), this.#facts,
        el("div", { class: "row actions" }, ...actions)),
      this.#trouble,
      this.#connection,
      this.#learning.element,
      codeDetails("Code that uploads this document", () => uploadSnippets(this.#shown)),
      this.#conversation.element,
    );
  }

  async #act(what) {
    this.#trouble.replaceChildren();
    try {
      await what();
    } catch (error) {
      this.#trouble.replaceChildren(problem(error, () => this.#act(what)));
    }
  }

  async #cancel() {
    this.#on.document(await call(this.#path("/cancel"), { method: "POST" }));
  }

  #downloadOriginal() {
    return download(this.#path("/content"), this.#shown.filename ?? `${this.#id}.txt`);
  }

  #downloadAdapter() {
    return download(this.#path("/adapter"), `${this.#id}-v${this.#shown.adapter.version}.tar`);
  }

  async #askAndDelete() {
    const isWanted = await confirmed({
      title: `Delete “${titleOf(this.#shown)}”?`,
      text: "The document, what was learned of it and this conversation go. This cannot be undone.",
      action: "Delete it",
    });
    if (isWanted) await this.#act(() => this.#delete());
  }

  async #delete() {
    await call(this.#path(""), { method: "DELETE" });
    this.#on.deleted();
  }

  #path(rest) {
    return `/documents/${this.#id}${rest}`;
  }
}

function factsOf({ title, filename, bytes: size, tokens, adapter }) {
  const parts = [title && filename, bytes(size), tokens > 0 && count(tokens, "token")];
  if (adapter) {
    const what = `${adapter.recipe}, rank ${adapter.rank}, ${bytes(adapter.bytes)}`;
    parts.push(`version ${adapter.version} (${what}) answers`);
  }
  return parts.filter(Boolean).join(" · ");
}
