// The conversation about one document. In: questions and the mode. Out: turns, each a question and its streamed answer,
// sent along with the next one; comparisons stand between them and are not.

import { Answer } from "./answer.js";
import { createComparison } from "./compare.js";
import { Composer } from "./composer.js";
import { button, el } from "./elements.js";
import { follow } from "./following.js";

export class Conversation {
  #documentId;
  #modelName;
  // Not live: an answer announces itself, whole.
  #log = el("div", { class: "log", role: "log", "aria-live": "off", "aria-label": "Conversation" });
  #composer = new Composer({
    ask: (question) => this.#ask(question),
    compare: (question) => this.#compare(question),
    stop: () => this.stop(),
  });
  #anew = button("New conversation", () => this.#startAnew(), { class: "quiet", hidden: true });
  #turns = []; // { question, result }
  #asking = null;

  constructor(documentId, modelName) {
    this.#documentId = documentId;
    this.#modelName = modelName;
    const head = el("div", { class: "row between" }, el("h3", {}, "Conversation"), this.#anew);
    this.element = el("section", { class: "conversation" }, head, this.#log, this.#composer.element);
  }

  stop() {
    this.#asking?.abort();
  }

  async #ask(question) {
    const answer = new Answer("Answer");
    const turns = this.#turns; // a new conversation may begin meanwhile
    const body = this.#body([...turns.flatMap(said), user(question)], this.#composer.lift);
    const element = this.#show(question, answer.element);
    const again = () => {
      if (this.#asking) return;
      element.remove();
      this.#ask(question);
    };
    await this.#during(async (signal) => {
      const result = await answer.run(body, signal, again);
      if (result.isAnswered) turns.push({ question, result });
    });
  }

  async #compare(question) {
    const bodyFor = (mode) => this.#body([user(question)], { mode });
    const comparison = createComparison(bodyFor, (work) => this.#during(work));
    this.#show(question, comparison.element);
    await this.#during(comparison.run);
  }

  #body(messages, lift) {
    // The likeliest answer, so that the same question has the same one.
    return { model: this.#modelName(), messages, temperature: 0, document_id: this.#documentId, lift };
  }

  async #during(work) {
    if (this.#asking) return;
    const mine = (this.#asking = new AbortController());
    this.#composer.busy(true);
    try {
      await work(mine.signal);
    } finally {
      if (this.#asking === mine) {
        this.#asking = null;
        this.#composer.busy(false);
      }
    }
  }

  #show(question, answer) {
    const asked = el("p", { class: "question" }, el("span", { class: "unseen" }, "You asked: "), question);
    const turn = el("div", { class: "turn" }, asked, answer);
    this.#log.append(turn);
    this.#anew.hidden = false;
    follow(turn, this.#composer.element);
    return turn;
  }

  #startAnew() {
    this.stop();
    this.#turns = [];
    this.#log.replaceChildren();
    this.#anew.hidden = true;
  }
}

function user(content) {
  return { role: "user", content };
}

// What the next question takes along of a turn.
function said({ question, result }) {
  return result.text ? [user(question), { role: "assistant", content: result.text }] : [];
}
