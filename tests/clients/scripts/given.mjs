// The same as given.py: what test_clients.py gives each script, from its environment, and a JSON object on stdout.

export const {
  OPENAI_BASE_URL: URL,
  OPENAI_API_KEY: KEY,
  LIFT_BASE: BASE,
  LIFT_DOCUMENT: DOCUMENT,
  LIFT_UNKNOWN: UNKNOWN,
  LIFT_TEXT: TEXT,
  LIFT_RECIPE: RECIPE,
  LIFT_QUESTION: QUESTION,
} = process.env;
export const NAMED = `${BASE}:${DOCUMENT}`;
export const MAX_TOKENS = 16;
export const TOOL_TOKENS = 64;

export const say = (got) => process.stdout.write(JSON.stringify(got));

export async function collect(parts) {
  const collected = [];
  for await (const part of parts) collected.push(part);
  return collected;
}

// The values of an object of promises, one after another: an answer must not depend on what else is being computed.
export async function each(object, promise) {
  const done = {};
  for (const [name, value] of Object.entries(object)) done[name] = await promise(value);
  return done;
}
