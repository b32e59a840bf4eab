// What went wrong, shown where it happened, and what a screen reader is told besides. In: an error, or words. Out: an
// element with the server's message and the way on.

import { button, el } from "./elements.js";

// In place of messages that speak of tokens and of the engine.
const PLAIN = {
  context_length_exceeded:
    "This is more than the model can read at once. Ask with Auto or Adapter, which need not read all of the text, " +
    "or begin a new conversation: all that was said is sent along.",
};

// `again` is offered as a button where trying again can help; `about` is one thing of several.
export function problem(error, again, about) {
  const isOurs = error.code === undefined;
  if (isOurs) console.error(error); // a fault of this page: say so where a developer looks
  const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  const message = PLAIN[error.code] ?? error.message;
  const says = message.includes("Try again in") ? message : message + wait;
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("p", {}, about && `${about}: `, el("strong", {}, isOurs ? "This page failed: " : "", says)),
    again && button("Try again", again),
  );
}

export function announce(text) {
  document.getElementById("announcements").textContent = text;
}
