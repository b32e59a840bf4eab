// Whose key is in use and what it may do. In: the object of /keys/me. Out: elements: the name, and a table of the
// limits with what is used of each.

import { el } from "./elements.js";
import { bytes } from "./format.js";

const NAMES = {
  requests_per_minute: "Requests this minute",
  tokens_per_minute: "Tokens this minute",
  documents: "Documents",
  bytes: "Their size",
  training: "Being learned",
};

export function limitsOf({ id, name, created_at, limits }) {
  const made = new Date(1000 * created_at).toLocaleDateString("en", { dateStyle: "medium" });
  const who = id
    ? el("p", {}, "In use: ", el("strong", {}, name), ` (${id}), made ${made}.`)
    : el("p", {}, "No key is needed: this server has none yet, and answers its own machine only.");
  const rows = Object.entries(NAMES).filter(([limit]) => isCounted(limit, limits[limit]));
  const table = el("table", { class: "limits" }, el("caption", { class: "hint" }, "Used, and allowed"),
    el("tbody", {}, ...rows.map(([limit, says]) =>
      el("tr", {}, el("th", { scope: "row" }, says), el("td", {}, told(limit, limits[limit]))))));
  return [who, table];
}

// Requests and tokens are counted only where they are limited.
function isCounted(name, { limit }) {
  return limit > 0 || !name.endsWith("_per_minute");
}

function told(name, { used, limit }) {
  const shown = (value) => (name === "bytes" ? bytes(value) : value.toLocaleString("en"));
  return limit ? `${shown(used)} of ${shown(limit)}` : `${shown(used)}, no limit`;
}
