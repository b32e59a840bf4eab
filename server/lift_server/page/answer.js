// One answer on its way. In: the body of a question. Out: an element that fills as the answer streams, then says where
// it came from and where its time went; and what was said, for the next turn.

import { request } from "./api.js";
import { el } from "./elements.js";
import { evidenceOf } from "./evidence.js";
import { about, seconds, sourceOf } from "./format.js";
import { announce, problem } from "./notices.js";
import { codeDetails, questionSnippets } from "./snippets.js";
import { content, events } from "./stream.js";
import { endOf, waterfall } from "./waterfall.js";

const WAITS = {
  training: "Waiting until it is learned …",
  loading: "Getting ready …",
  evidence: "Looking for it in the document …",
};

export class Answer {
  #name;
  #text = el("p", { class: "said" });
  #state = el("p", { class: "state" }, "Asking …");
  #after = el("div", { class: "after" });
  #lift = null;

  constructor(name) {
    this.#name = name;
    const attributes = { class: "answer", "aria-label": name, "aria-busy": "true" };
    this.element = el("article", attributes, this.#text, this.#state, this.#after);
  }

  // Never fails: what goes wrong is shown. `again` asks anew. Tells whether there is an answer, and its text.
  async run(body, signal, again) {
    try {
      const finish = await this.#stream(body, signal);
      const code = codeDetails("Code that asks this", () => questionSnippets(body));
      this.#after.replaceChildren(...told(this.#lift), code);
      return this.#end(this.#note(finish), true);
    } catch (error) {
      if (error.name === "AbortError") return this.#end("Stopped.", true);
      this.#after.replaceChildren(problem(error, again));
      return this.#end("", false);
    }
  }

  // On the clock of `length_s`, so that several can be compared.
  draw(length_s) {
    this.#after.querySelector(".waterfall")?.replaceWith(drawn(this.#lift, length_s));
  }

  get length_s() {
    return this.#lift ? endOf(this.#lift.phases, this.#lift.ttft_s) : 0;
  }

  async #stream(body, signal) {
    const answer = await request("/chat/completions", { method: "POST", json: { ...body, stream: true }, signal });
    let finish = null;
    for await (const { data, comment } of events(answer)) {
      if (comment !== undefined) this.#state.textContent = WAITS[comment] ?? this.#state.textContent;
      else finish = this.#take(content(data)) ?? finish;
    }
    return finish;
  }

  #take(chunk) {
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) {
      this.#state.textContent = "";
      this.#text.append(choice.delta.content);
    }
    this.#lift = chunk.lift ?? this.#lift;
    return choice?.finish_reason;
  }

  #note(finish) {
    if (!this.#text.textContent) return "The answer is empty.";
    return finish === "length" ? "Cut off: the longest answer there may be." : "";
  }

  #end(says, isAnswered) {
    const text = this.#text.textContent;
    this.#state.textContent = says;
    this.#state.hidden = !says;
    this.element.setAttribute("aria-busy", "false");
    if (isAnswered) announce(`${this.#name}: ${text || says}`);
    return { isAnswered, text };
  }
}

function told(lift) {
  if (!lift) return [];
  const details = el("details", { class: "time", open: true }, el("summary", {}, "Where the time went"), drawn(lift));
  return [
    el("p", { class: "source" }, el("strong", {}, sourceOf(lift)), ` · first token after ${seconds(lift.ttft_s)}`,
      lift.adapter_eta_s != null && ` · learned in about ${about(lift.adapter_eta_s)}`),
    evidenceOf(lift),
    details,
  ].filter(Boolean);
}

function drawn(lift, length_s) {
  return waterfall("From the question on; phases overlap", lift.phases, { first_s: lift.ttft_s, length_s });
}
