// The list of documents. In: pages of /v1/documents, and single ones as they change. Out: links, one a document, with
// its status in words; which one is shown is in the page's address.

import { call } from "./api.js";
import { button, el } from "./elements.js";
import { bytes, count, statusOf, titleOf } from "./format.js";
import { problem } from "./notices.js";

const PAGE = 20;
const MOST = 100; // the server's largest page
const AGAIN_MS = 10_000;

// `again` is called where loading failed and is to be tried anew.
export function createList(host, again) {
  const shown = new Map(); // by id: { shown, link }, newest first
  const list = el("ul", { class: "list" });
  const empty = el("p", { class: "hint" }, "None yet.");
  const older = button("Show older ones", more, { class: "wide", hidden: true });
  const trouble = el("div");
  let current = null;
  let timer = null;
  host.append(trouble, list, empty, older);

  // Also what looks again by itself while others than the one shown are being learned.
  async function refresh() {
    clearTimeout(timer);
    const limit = Math.min(MOST, Math.max(PAGE, shown.size));
    await load(`/documents?limit=${limit}`, () => {
      shown.clear();
      list.replaceChildren();
    });
    lookAgain();
  }

  function more() {
    return load(`/documents?limit=${PAGE}&after=${encodeURIComponent([...shown.keys()].at(-1))}`, () => {});
  }

  async function load(path, before) {
    try {
      const page = await call(path);
      trouble.replaceChildren();
      const focused = list.contains(document.activeElement) ? document.activeElement.hash : null;
      before();
      for (const one of page.data) put(one, "append");
      if (focused) shown.get(focused.slice(1))?.link.focus();
      older.hidden = !page.has_more;
    } catch (error) {
      if (error.status === 401) before(); // whoever comes next may be somebody else
      trouble.replaceChildren(problem(error, again));
    }
    empty.hidden = shown.size > 0 || trouble.hasChildNodes();
  }

  function lookAgain() {
    const isWanted = [...shown.values()].some((one) => one.shown.unfinished && one.shown.id !== current);
    timer = isWanted ? setTimeout(() => (document.hidden ? lookAgain() : refresh()), AGAIN_MS) : null;
  }

  function put(given, place = "prepend") {
    let entry = shown.get(given.id);
    if (!entry) {
      entry = { link: el("a", { href: `#${given.id}` }) };
      list[place](el("li", {}, entry.link));
      shown.set(given.id, entry);
    }
    entry.shown = given;
    entry.link.replaceChildren(...words(given));
    mark(entry.link, given.id);
    empty.hidden = true;
  }

  function drop(id) {
    shown.get(id)?.link.parentElement.remove();
    shown.delete(id);
    empty.hidden = shown.size > 0;
  }

  function select(id) {
    current = id;
    for (const [one, { link }] of shown) mark(link, one);
    clearTimeout(timer);
    lookAgain();
  }

  function mark(link, id) {
    if (id === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }

  return { refresh, put, drop, select, get: (id) => shown.get(id)?.shown };
}

function words(given) {
  const size = given.tokens ? count(given.tokens, "token") : bytes(given.bytes);
  return [
    el("span", { class: "name" }, titleOf(given)),
    el("span", { class: "facts" }, chip(given), el("span", { class: "hint" }, size)),
  ];
}

// The status in a word, with a sign of its own.
export function chip(given) {
  const isLearning = given.status === "training" || (given.status === "ready" && given.unfinished);
  return el("span", { class: "chip", "data-status": given.status, "data-learning": isLearning }, statusOf(given));
}
