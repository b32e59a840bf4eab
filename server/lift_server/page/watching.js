// A document's changes as they come. In: its id. Out: `onDocument` and `onLessons` (what it is learned with) now and at
// each change until nothing more will come, `onDeleted`, `onProblem`; a lost connection is tried again by itself, ever
// more slowly. Returns what ends it.

import { Lost, request } from "./api.js";
import { content, events } from "./stream.js";

const LONGEST_S = 30;

export function watch(id, { onDocument, onLessons, onDeleted, onProblem }) {
  const leaving = new AbortController();
  let wait_s = 1;

  async function listen() {
    const response = await request(`/documents/${id}/events?learning=true`, { signal: leaving.signal });
    for await (const { data } of events(response)) {
      if (data === undefined) continue;
      wait_s = 1;
      const told = content(data);
      if (told.object === "document.deleted") return onDeleted();
      if (told.object === "document.learning") onLessons(told);
      else onDocument(told);
    }
  }

  async function run() {
    while (!leaving.signal.aborted) {
      try {
        return await listen();
      } catch (error) {
        if (leaving.signal.aborted) return;
        if (error.code === "document_not_found") return onDeleted();
        onProblem(error);
        if (!helps(error)) return;
      }
      await pause(wait_s, leaving.signal);
      wait_s = Math.min(2 * wait_s, LONGEST_S);
    }
  }

  run();
  return () => leaving.abort();
}

// Whether trying again can.
function helps(error) {
  return error instanceof Lost || error.status >= 500 || error.status === 429 || error.code === "server_stopping";
}

function pause(wait_s, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 1000 * wait_s);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); });
  });
}
