// A file of the server's onto the reader's disk. In: its path and a name. Out: a download; by fetch, since a plain link
// could not show the key.

import { orLost, request } from "./api.js";
import { el } from "./elements.js";

export async function download(path, name) {
  const answer = await request(path);
  const blob = await orLost(answer.blob());
  const link = el("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the browser reads it after the click
}
