// Server-sent events over fetch, since EventSource can show no key. In: a Response. Out: { data } and { comment }, one
// after the other, up to `data: [DONE]`; Lost where the stream breaks off before it.

import { Lost, Refusal, orLost } from "./api.js";

const END = /\r?\n\r?\n/;

export async function* events(response) {
  const reader = response.body.getReader();
  try {
    for await (const block of blocks(reader)) {
      const event = parsed(block);
      if (event.data === "[DONE]") return;
      yield event;
    }
    throw new Lost();
  } finally {
    reader.cancel().catch(() => {}); // it may be broken already
  }
}

// The JSON of an event. What the server refuses after its headers were sent comes as an event too.
export function content(data) {
  const value = JSON.parse(data);
  if (value.error && !value.object) throw new Refusal(200, value.error, null);
  return value;
}

async function* blocks(reader) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await orLost(reader.read());
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split(END);
    rest = parts.pop();
    yield* parts;
  }
}

function parsed(block) {
  const lines = block.split(/\r?\n/);
  const data = lines.filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, ""));
  return data.length ? { data: data.join("\n") } : { comment: lines[0].replace(/^: ?/, "") };
}
