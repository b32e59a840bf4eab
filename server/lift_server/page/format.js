// In: numbers and names as the API has them. Out: words for people.

export function seconds(value) {
  if (value < 0.0995) return `${Math.round(value * 1000)} ms`;
  if (value < 9.995) return `${value.toFixed(2)} s`;
  if (value < 119.5) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  return `${Math.floor(whole / 60)} min ${whole % 60} s`;
}

// An estimate, which is no better than its rounding.
export function about(value) {
  return value < 119.5 ? `${Math.max(1, Math.round(value))} s` : seconds(value);
}

export function bytes(value) {
  const units = ["B", "kB", "MB", "GB"];
  let power = 0;
  while (value >= 1000 && power < units.length - 1) {
    value /= 1000;
    power += 1;
  }
  return `${power && value < 100 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}

export function count(value, one) {
  return `${value.toLocaleString("en")} ${one}${value === 1 ? "" : "s"}`;
}

export function titleOf(shown) {
  return shown.title || shown.filename || "Untitled";
}

// Whether it is made of several documents.
export function isSet(shown) {
  return Boolean(shown.document_ids);
}

const STATUSES = { queued: "Waiting", training: "Learning", ready: "Ready", failed: "Failed", cancelled: "Stopped" };

export function statusOf(shown) {
  if (shown.status === "ready" && shown.unfinished) return "Ready, still learning";
  return STATUSES[shown.status] ?? shown.status;
}

const PHASES = {
  queue: "Waiting for a worker",
  segment: "Cutting the text",
  synthesize: "Writing questions",
  train: "Training",
  publish: "Publishing",
  refine: "Getting better",
  accept: "Finding the document",
  wait: "Waiting for training",
  load: "Loading the adapter",
  fit: "Fitting the text",
  prefill: "Reading the prompt",
};

export function phaseName(phase) {
  return PHASES[phase] ?? phase;
}

export const MODES = {
  auto: { name: "Auto", says: "From what it learned once there is a version; until then from the text or an excerpt." },
  adapter: { name: "Adapter", says: "From what the model learned, without the text. Waits for the first version." },
  context: { name: "Context", says: "From the text in the prompt, as assistants usually do. The whole text must fit." },
  hybrid: { name: "Hybrid", says: "From what it learned and the text in the prompt, or an excerpt near the question." },
};

const SOURCES = {
  adapter: "What it learned",
  hybrid: "What it learned, and the text",
  context: "The text in the prompt",
  base: "The base model alone",
};

// Where the text does not fit, the prompt has what of it is near to the question.
const EXCERPTS = {
  hybrid: "What it learned, and an excerpt of the text",
  context: "An excerpt of the text in the prompt",
};

export function sourceOf({ answered_from, excerpt, adapter_version }) {
  const version = adapter_version ? `, version ${adapter_version}` : "";
  return `${(excerpt ? EXCERPTS : SOURCES)[answered_from] ?? answered_from}${version}`;
}
