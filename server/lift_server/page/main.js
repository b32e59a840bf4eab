// The page: the bar, the list, the document that its address names (#doc_…). In: what the parts report. Out: the
// right one shown, watched while it is being learned.

import { call } from "./api.js";
import { DocumentList } from "./documents.js";
import { KeyDialog } from "./key.js";
import { announce, problem } from "./notices.js";
import { Panel } from "./panel.js";
import { EXAMPLE, Upload } from "./upload.js";
import { watch } from "./watching.js";

const byId = (id) => document.getElementById(id);
const list = new DocumentList(byId("list"), start, (set) => {
  list.put(set);
  open(set.id);
});
const panels = new Map(); // by document id; each keeps its conversation
let model = ""; // the base model's name in the API
let leave = () => {};

const upload = new Upload(byId("add"), (shown) => {
  list.put(shown);
  open(shown.id);
});
byId("example").addEventListener("click", () => upload.sendText(EXAMPLE));
byId("list").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link) panels.get(link.hash.slice(1))?.focus(); // shown already
});
new KeyDialog(byId("key-button"), start);
addEventListener("hashchange", () => show(true));
start();

async function start() {
  await Promise.all([nameModel(), list.refresh()]);
  show(false);
}

async function nameModel() {
  try {
    model = (await call("/models")).data[0].id;
    byId("model").textContent = model;
  } catch {
    byId("model").textContent = ""; // the list, which asks the same server, says why
  }
}

function open(id) {
  if (location.hash === `#${id}`) show(true);
  else location.hash = id;
}

function show(isChosen) {
  leave();
  const id = location.hash.slice(1);
  const isDocument = /^doc_[0-9a-f]{24}$/.test(id); // it becomes part of a path
  byId("welcome").hidden = isDocument;
  list.select(isDocument ? id : null);
  if (isDocument) showDocument(id, isChosen);
  else byId("document").replaceChildren();
}

function showDocument(id, isChosen) {
  const on = { modelName: () => model, document: onDocument, deleted: () => forget(id), known: list };
  const panel = panels.get(id) ?? new Panel(id, on);
  panels.set(id, panel);
  const known = list.get(id);
  if (known) panel.show(known);

  function onDocument(given) {
    panel.show(given);
    if (!panel.element.isConnected && location.hash === `#${id}`) byId("document").replaceChildren(panel.element);
    list.put(given);
  }

  byId("document").replaceChildren(...(known ? [panel.element] : []));
  if (known && isChosen) panel.focus();
  const onProblem = (error) => {
    if (panel.element.isConnected) panel.fail(error);
    else byId("document").replaceChildren(problem(error));
  };
  const onLessons = (told) => panel.showLessons(told);
  leave = watch(id, { onDocument, onLessons, onDeleted: on.deleted, onProblem });
}

function forget(id) {
  announce("The document is deleted.");
  for (const one of [id, ...list.setsOf(id).map((set) => set.id)]) { // no set outlives one of its documents
    panels.get(one)?.close();
    panels.delete(one);
    list.drop(one);
  }
  if (location.hash !== `#${id}`) return;
  history.replaceState(null, "", location.pathname + location.search);
  show(false);
  byId("list-title").focus();
}
