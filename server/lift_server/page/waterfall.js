// Where time went. In: `phases` (name → start and end on one clock), marks, the clock's length. Out: a table with a bar
// a row. Phases overlap, so nothing here adds them up.

import { el } from "./elements.js";
import { phaseName, seconds } from "./format.js";

// `first_s`: when the first token was written, where there was one. `length_s`: to draw several on one scale.
export function waterfall(caption, phases, { first_s = null, length_s = endOf(phases, first_s) } = {}) {
  const rows = Object.entries(phases).sort(([, a], [, b]) => a.start_s - b.start_s);
  const scale = length_s || 1;
  return el(
    "table",
    { class: "waterfall", role: "table" }, // the roles are a table's own; a narrow one is laid out as none
    el("caption", {}, caption),
    el("thead", { role: "rowgroup" },
      el("tr", { role: "row" }, header("Phase"), header("Time"), header("From the start on"))),
    el("tbody", { role: "rowgroup" },
      ...rows.map(([name, span]) => row(name, span, scale, first_s)),
      first_s != null && firstToken(first_s, scale)),
  );
}

export function endOf(phases, first_s) {
  return Math.max(first_s ?? 0, ...Object.values(phases).map((span) => span.end_s ?? span.start_s));
}

function row(name, { start_s, end_s }, scale, first_s) {
  const until = end_s ?? scale;
  const took = end_s == null ? `since ${seconds(start_s)}` : seconds(end_s - start_s);
  const bar = el("div", { class: "span", "data-phase": name });
  place(bar, start_s / scale, (until - start_s) / scale);
  return line({}, phaseName(name), took, track(bar, first_s, scale));
}

function firstToken(first_s, scale) {
  return line({ class: "first" }, "First token", `at ${seconds(first_s)}`, track(null, first_s, scale));
}

function line(attributes, name, time, bar) {
  return el("tr", { role: "row", ...attributes }, el("th", { role: "rowheader", scope: "row" }, name),
    el("td", { role: "cell", class: "number" }, time), el("td", { role: "cell", class: "bar" }, bar));
}

function track(bar, first_s, scale) {
  const mark = first_s != null && el("div", { class: "mark" });
  if (mark) place(mark, first_s / scale);
  return el("div", { class: "track", "aria-hidden": "true" }, bar, mark);
}

function place(node, left, width) {
  node.style.left = `${Math.min(100, 100 * left)}%`;
  if (width !== undefined) node.style.width = `${Math.max(0, 100 * width)}%`;
}

function header(text) {
  return el("th", { role: "columnheader", scope: "col" }, text);
}
