// The page: the bar, the list, the document that its address names (#doc_…). In: what the parts report. Out: the right
// one shown, watched while it is being learned.

import { call } from "./api.js";
import { createList } from "./documents.js";
import { setUpKey } from "./key.js";
import { announce, problem } from "./notices.js";
import { createPanel } from "./panel.js";
import { EXAMPLE, setUpUpload } from "./upload.js";
import { watch } from "./watching.js";

const byId = (id) => document.getElementById(id);
const list = createList(byId("list"), start);
const panels = new Map(); // by document id; each keeps its conversation
let model = ""; // the base model's name in the API
let leave = () => {};

const sendText = setUpUpload(byId("add"), (shown) => {
  list.put(shown);
  open(shown.id);
});
byId("example").addEventListener("click", () => sendText(EXAMPLE));
byId("list").addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (link) panels.get(link.hash.slice(1))?.focus(); // shown already
});
setUpKey(byId("key-button"), start);
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
  const isDocument = id.startsWith("doc_");
  byId("welcome").hidden = isDocument;
  list.select(isDocument ? id : null);
  if (isDocument) showDocument(id, isChosen);
  else byId("document").replaceChildren();
}

function showDocument(id, isChosen) {
  const panel = panels.get(id) ?? createPanel(id, { modelName: () => model, onDocument, onDeleted: () => forget(id) });
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
  leave = watch(id, {
    onDocument,
    onDeleted: () => forget(id),
    onProblem: (error) => (panel.element.isConnected ? panel.fail(error) : byId("document").replaceChildren(problem(error))),
  });
}

function forget(id) {
  announce("The document is deleted.");
  panels.get(id)?.close();
  panels.delete(id);
  list.drop(id);
  if (location.hash !== `#${id}`) return;
  history.replaceState(null, "", location.pathname + location.search);
  show(false);
  byId("list-title").focus();
}
