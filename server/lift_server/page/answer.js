// One answer on its way. In: the body of a question. Out: an element that fills as the answer streams, then says where
// it came from and where its time went; and what was said, for the next turn.

import { request } from "./api.js";
import { el } from "./elements.js";
import { seconds, sourceOf } from "./format.js";
import { announce, problem } from "./notices.js";
import { codeDetails, questionSnippets } from "./snippets.js";
import { content, events } from "./stream.js";
import { endOf, waterfall } from "./waterfall.js";

const WAITS = {
  training: "Waiting until the document is learned …",
  loading: "Getting ready …",
};

export function createAnswer(name) {
  const text = el("p", { class: "said" });
  const state = el("p", { class: "state" }, "Asking …");
  const after = el("div", { class: "after" });
  const element = el("article", { class: "answer", "aria-label": name, "aria-busy": "true" }, text, state, after);
  let lift = null;

  // Never fails: what goes wrong is shown. `again` asks anew.
  async function run(body, signal, again) {
    try {
      const finish = await stream(body, signal);
      after.replaceChildren(...told(lift), codeDetails("Code that asks this", () => questionSnippets(body)));
      end(note(finish), true);
    } catch (error) {
      if (error.name === "AbortError") return end("Stopped.", true);
      after.replaceChildren(problem(error, again));
      end("", false);
    }
    return result;
  }

  async function stream(body, signal) {
    const answer = await request("/chat/completions", { method: "POST", json: { ...body, stream: true }, signal });
    let finish = null;
    for await (const { data, comment } of events(answer)) {
      if (comment !== undefined) state.textContent = WAITS[comment] ?? state.textContent;
      else finish = take(content(data)) ?? finish;
    }
    return finish;
  }

  function take(chunk) {
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) {
      state.textContent = "";
      text.append(choice.delta.content);
    }
    lift = chunk.lift ?? lift;
    return choice?.finish_reason;
  }

  function note(finish) {
    if (!text.textContent) return "The answer is empty.";
    return finish === "length" ? "Cut off: the longest answer there may be." : "";
  }

  const result = { isAnswered: false, text: "" };

  function end(says, isAnswered) {
    state.textContent = says;
    state.hidden = !says;
    element.setAttribute("aria-busy", "false");
    Object.assign(result, { isAnswered, text: text.textContent });
    if (isAnswered) announce(`${name}: ${text.textContent || says}`);
    return result;
  }

  // Several answers on one scale.
  function draw(length_s) {
    after.querySelector(".waterfall")?.replaceWith(drawn(lift, length_s));
  }

  return { element, run, draw, length: () => (lift ? endOf(lift.phases, lift.ttft_s) : 0) };
}

function told(lift) {
  if (!lift) return [];
  const details = el("details", { class: "time", open: true }, el("summary", {}, "Where the time went"), drawn(lift));
  return [
    el("p", { class: "source" }, el("strong", {}, sourceOf(lift)), ` · first token after ${seconds(lift.ttft_s)}`),
    details,
  ];
}

function drawn(lift, length_s) {
  return waterfall("From the question on; phases overlap", lift.phases, { first_s: lift.ttft_s, length_s });
}
