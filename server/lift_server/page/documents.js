// The list of documents. In: pages of /v1/documents, and single ones as they change. Out: links, one a document, with
// its status in words, and boxes to choose several by; which one is shown is in the page's address.

import { call } from "./api.js";
import { button, el } from "./elements.js";
import { bytes, count, isSet, statusOf, titleOf } from "./format.js";
import { problem } from "./notices.js";
import { Together } from "./together.js";

const PAGE = 20;
const MOST = 100; // the server's largest page
const AGAIN_MS = 10_000;

export class DocumentList {
  #shown = new Map(); // by id: { shown, item, link }, as they came
  #list = el("ul", { class: "list" });
  #empty = el("p", { class: "hint" }, "None yet.");
  #older = button("Show older ones", () => this.#more(), { class: "wide", hidden: true });
  #trouble = el("div");
  #again;
  #together;
  #current = null;
  #timer = null;

  // `again` is called where loading failed and is to be tried anew, `onSet` with the set of those that were chosen.
  constructor(host, again, onSet) {
    this.#again = again;
    this.#together = new Together(() => [...this.#shown.values()].map(({ shown }) => shown), onSet);
    host.append(this.#trouble, this.#list, this.#empty, this.#older, this.#together.element);
  }

  get(id) {
    return this.#shown.get(id)?.shown;
  }

  // Also what looks again by itself while others than the one shown are being learned.
  async refresh() {
    clearTimeout(this.#timer);
    const limit = Math.min(MOST, Math.max(PAGE, this.#shown.size));
    await this.#load(`/documents?limit=${limit}`, () => this.#clear());
    this.#lookAgain();
  }

  put(given, place = "prepend") {
    let entry = this.#shown.get(given.id);
    if (!entry) {
      entry = { link: el("a", { href: `#${given.id}` }) };
      entry.item = el("li", {}, this.#together.box(given), entry.link);
      this.#list[place](entry.item);
      this.#shown.set(given.id, entry);
    }
    entry.shown = given;
    entry.link.replaceChildren(...words(given));
    this.#mark(entry.link, given.id);
    this.#empty.hidden = true;
  }

  drop(id) {
    this.#shown.get(id)?.item.remove();
    this.#shown.delete(id);
    this.#together.keep([...this.#shown.keys()]);
    this.#empty.hidden = this.#shown.size > 0;
  }

  // The sets that this document is in, as far as they are in the list; they go with it.
  setsOf(id) {
    return [...this.#shown.values()].map(({ shown }) => shown).filter((one) => one.document_ids?.includes(id));
  }

  select(id) {
    this.#current = id;
    for (const [one, { link }] of this.#shown) this.#mark(link, one);
    clearTimeout(this.#timer);
    this.#lookAgain();
  }

  #more() {
    const last = this.#list.lastElementChild.querySelector("a").hash.slice(1); // not the last that came
    return this.#load(`/documents?limit=${PAGE}&after=${encodeURIComponent(last)}`, () => {});
  }

  async #load(path, before) {
    try {
      const page = await call(path);
      this.#trouble.replaceChildren();
      this.#keepingFocus(() => {
        before();
        for (const one of page.data) this.put(one, "append");
      });
      this.#together.keep([...this.#shown.keys()]);
      this.#older.hidden = !page.has_more;
    } catch (error) {
      if (error.status === 401) { // whoever comes next may be somebody else
        before();
        this.#together.keep([]);
      }
      this.#trouble.replaceChildren(problem(error, this.#again));
    }
    this.#empty.hidden = this.#shown.size > 0 || this.#trouble.hasChildNodes();
  }

  #keepingFocus(change) {
    const focused = document.activeElement;
    const [id] = [...this.#shown].find(([, { item }]) => item.contains(focused)) ?? [];
    change();
    const item = this.#shown.get(id)?.item;
    item?.querySelector(focused.localName)?.focus();
  }

  #clear() {
    this.#shown.clear();
    this.#list.replaceChildren();
  }

  #lookAgain() {
    const isWanted = [...this.#shown.values()].some(({ shown }) => shown.unfinished && shown.id !== this.#current);
    const look = () => (document.hidden ? this.#lookAgain() : this.refresh());
    this.#timer = isWanted ? setTimeout(look, AGAIN_MS) : null;
  }

  #mark(link, id) {
    if (id === this.#current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function words(given) {
  const size = given.tokens ? count(given.tokens, "token") : bytes(given.bytes);
  const facts = isSet(given) ? `${count(given.document_ids.length, "document")} as one · ${size}` : size;
  return [
    el("span", { class: "name" }, titleOf(given)),
    el("span", { class: "facts" }, chip(given), el("span", { class: "hint" }, facts)),
  ];
}

// The status in a word, with a sign of its own.
export function chip(given) {
  const isLearning = given.status === "training" || (given.status === "ready" && given.unfinished);
  return el("span", { class: "chip", "data-status": given.status, "data-learning": isLearning }, statusOf(given));
}
