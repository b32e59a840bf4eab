// One document: what it is, how it is learned, what can be done with it, the conversation about it. In: the document
// object at each change. Out: an element that stays, with all that was typed and said in it, while others are shown.

import { call } from "./api.js";
import { Conversation } from "./chat.js";
import { confirmed } from "./confirm.js";
import { chip } from "./documents.js";
import { download } from "./downloads.js";
import { button, el } from "./elements.js";
import { bytes, count, isSet, titleOf } from "./format.js";
import { Learning } from "./learning.js";
import { Members } from "./members.js";
import { problem } from "./notices.js";
import { codeDetails, setSnippets, uploadSnippets } from "./snippets.js";

export class Panel {
  #id;
  #on;
  #shown = null;
  #heading = el("h2", { tabindex: "-1" });
  #status = el("span");
  #facts = el("span", { class: "hint" });
  #trouble = el("div"); // of what was done here
  #connection = el("div"); // of watching; gone with the next change
  #members;
  #learning = new Learning();
  #upload = codeDetails("Code that uploads this document", () => uploadSnippets(this.#shown));
  #making = codeDetails("Code that makes this set", () => setSnippets(this.#shown));
  #conversation;
  #stop = button("Stop learning", () => this.#act(() => this.#cancel()));
  #original = button("Download original", () => this.#act(() => this.#downloadOriginal()));
  #adapter = button("Download adapter", () => this.#act(() => this.#downloadAdapter()));

  // `on`: `modelName`, `document` (it changed by what was done here), `deleted`; `known`, the list.
  constructor(id, on) {
    this.#id = id;
    this.#on = on;
    this.#members = new Members(on.known);
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
    this.#original.textContent = isSet(given) ? "Download text" : "Download original";
    this.#upload.hidden = isSet(given);
    this.#making.hidden = !isSet(given);
    this.#members.show(given.document_ids);
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
        this.#members.element, el("div", { class: "row actions" }, ...actions)),
      this.#trouble,
      this.#connection,
      this.#learning.element,
      this.#upload,
      this.#making,
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
      text: this.#lost(),
      action: "Delete it",
    });
    if (isWanted) await this.#act(() => this.#delete());
  }

  #lost() {
    if (isSet(this.#shown)) return "The set, what was learned of it and this conversation go; its documents stay.";
    const sets = this.#on.known.setsOf(this.#id).map((one) => `“${titleOf(one)}”`);
    const alike = sets.length ? ` So does what it was asked together as: ${sets.join(", ")}.` : "";
    return `The document, what was learned of it and this conversation go.${alike} This cannot be undone.`;
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
