// The conversation about one document. In: questions and the mode. Out: turns, each a question and its streamed answer,
// sent along with the next one; comparisons stand between them and are not.

import { createAnswer } from "./answer.js";
import { createComparison } from "./compare.js";
import { createComposer } from "./composer.js";
import { button, el } from "./elements.js";
import { follow } from "./following.js";

export function createConversation(documentId, modelName) {
  const log = el("div", { class: "log", role: "log", "aria-live": "off", "aria-label": "Conversation" } /* answers announce themselves, whole */);
  const composer = createComposer({ onAsk: ask, onCompare: compare, onStop: stop });
  const anew = button("New conversation", startAnew, { class: "quiet", hidden: true });
  let turns = []; // { question, result }
  let asking = null;

  function bodyOf(messages, mode) {
    return { model: modelName(), messages, document_id: documentId, lift: { mode } };
  }

  async function ask(question) {
    const answer = createAnswer("Answer");
    const mine = turns; // a new conversation may begin meanwhile
    const messages = [...mine.flatMap(said), user(question)];
    const body = bodyOf(messages, composer.mode());
    const element = show(question, answer.element);
    const again = () => {
      if (asking) return;
      element.remove();
      ask(question);
    };
    await during(async (signal) => {
      const result = await answer.run(body, signal, again);
      if (result.isAnswered) mine.push({ question, result });
    });
  }

  async function compare(question) {
    const comparison = createComparison((mode) => bodyOf([user(question)], mode));
    show(question, comparison.element);
    await during(comparison.run);
  }

  async function during(work) {
    const mine = (asking = new AbortController());
    composer.busy(true);
    try {
      await work(mine.signal);
    } finally {
      if (asking === mine) {
        asking = null;
        composer.busy(false);
      }
    }
  }

  function show(question, answer) {
    const turn = el("div", { class: "turn" }, el("p", { class: "question" }, el("span", { class: "unseen" }, "You asked: "), question), answer);
    log.append(turn);
    anew.hidden = false;
    follow(turn, composer.element);
    return turn;
  }

  function stop() {
    asking?.abort();
  }

  function startAnew() {
    stop();
    turns = [];
    log.replaceChildren();
    anew.hidden = true;
  }

  const head = el("div", { class: "row between" }, el("h3", {}, "Conversation"), anew);
  return { element: el("section", { class: "conversation" }, head, log, composer.element), stop };
}

function user(content) {
  return { role: "user", content };
}

// What the next question takes along of a turn.
function said({ question, result }) {
  return result.text ? [user(question), { role: "assistant", content: result.text }] : [];
}
