// How a document is being learned. In: the document object and that of /learning, again and again. Out: phases,
// progress, counts, tasks and loss as they are, and once there are versions, a table of them and where the time went.

import { el } from "./elements.js";
import { about, bytes, count, phaseName, seconds, statusOf } from "./format.js";
import { Lessons } from "./lessons.js";
import { announce } from "./notices.js";
import { waterfall } from "./waterfall.js";

const WAY = ["queue", "segment", "synthesize", "train", "publish"];
const STATES = { done: "done", running: "under way", open: "to come" };

export class Learning {
  #phases = el("ol", { class: "phases" });
  #bar = el("progress", { max: "1", "aria-label": "Progress towards the next version" });
  #where = el("p", { class: "where" });
  #counts = el("p", { class: "counts" });
  #now = el("div", { class: "card learning" }, this.#phases, this.#bar, this.#where, this.#counts);
  #reason = el("p", { class: "problem", role: "alert" });
  #history = el("div", { class: "history" });
  #details = el("details", {}, el("summary", {}, "How it was learned"), this.#history);
  #lessons = new Lessons();
  #told = "";
  element = el("div", { class: "learned" }, this.#reason, this.#now, this.#details);

  show(given) {
    this.#now.hidden = !given.unfinished;
    this.#details.hidden = !given.adapters.length && given.unfinished;
    this.#reason.hidden = !given.error;
    this.#reason.textContent = given.error ? `${given.error.message} (${given.error.code})` : "";
    if (given.unfinished) this.#showProgress(given);
    this.#place(given.unfinished ? this.#now : this.#details);
    this.#history.replaceChildren(...past(given));
    this.#tell(given);
  }

  showLessons(told) {
    this.#lessons.show(told);
  }

  // Before one's eyes while it goes on, with the rest of its history afterwards.
  #place(home) {
    if (this.#lessons.element.parentElement !== home) home.append(this.#lessons.element);
  }

  #showProgress(given) {
    const { phase, fraction, eta_s, segments, tasks, steps } = given.progress;
    this.#phases.replaceChildren(...way(given).map((name) => step(name, stateOf(name, given))));
    this.#bar.value = fraction;
    const left = eta_s == null ? "" : `, about ${about(eta_s)} left`;
    this.#where.textContent = `${phaseName(phase)}: ${Math.round(100 * fraction)} %${left}`;
    const counted = [count(segments, "segment"), count(tasks, "task"), count(steps, "training step")];
    this.#counts.textContent = counted.join(" · ");
  }

  // A screen reader hears of each status and phase once, not of every percent.
  #tell(given) {
    const says = `${statusOf(given)}${given.unfinished ? `: ${phaseName(given.progress.phase)}` : ""}`;
    if (this.#told && says !== this.#told) announce(says);
    this.#told = says;
  }
}

function way({ adapters, status }) {
  return adapters.length || status === "ready" ? [...WAY, "refine"] : WAY;
}

function stateOf(name, { timeline }) {
  const span = timeline[name];
  if (!span) return "open";
  return span.end_s == null ? "running" : "done";
}

function step(name, state) {
  return el("li", { "data-state": state, "aria-current": state === "running" && "step" }, phaseName(name),
    el("span", { class: "unseen" }, `, ${STATES[state]}`));
}

function past({ adapters, timeline }) {
  const versions = adapters.length > 0 && table(adapters);
  const spans = Object.keys(timeline).length > 0 && waterfall("From the upload on", timeline);
  return [versions, spans].filter(Boolean);
}

function table(adapters) {
  const heads = ["Version", "Recipe", "Ready after", "Tasks", "Steps", "Size"];
  const row = ({ version, recipe, ready_s, tasks, steps, bytes: size }) =>
    el("tr", {}, el("th", { scope: "row" }, String(version)),
      ...[recipe, seconds(ready_s), tasks, steps, bytes(size)].map((value) => el("td", {}, String(value))));
  return el("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Versions" },
    el("table", { class: "versions" },
      el("thead", {}, el("tr", {}, ...heads.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...adapters.map(row))));
}
