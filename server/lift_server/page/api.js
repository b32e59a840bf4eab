// HTTP to this server. In: a path below /v1 and what to send. Out: the answer; a Refusal in the server's words, or
// Lost where there was no answer. The API key is kept for this tab only and travels in a header, never in an address.

const KEY = "lift-api-key";
const unauthorized = new Set();

export class Refusal extends Error {
  constructor(status, error, retryAfter) {
    super(error?.message ?? `The server answered with status ${status}.`);
    this.status = status;
    this.code = error?.code ?? null;
    this.retryAfter = retryAfter;
  }
}

export class Lost extends Error {
  constructor() {
    super("No connection to the server. See whether it runs, then try again; nothing you typed is lost.");
    this.code = "connection_lost";
  }
}

export const keyStore = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)),
};

// Called with every refusal for want of a good key.
export function onUnauthorized(listener) {
  unauthorized.add(listener);
}

export function address(path) {
  return new URL(`v1${path}`, document.baseURI).href;
}

export async function request(path, { method = "GET", json, form, signal } = {}) {
  const headers = {};
  if (keyStore.get()) headers.Authorization = `Bearer ${keyStore.get()}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  const body = json === undefined ? form : JSON.stringify(json);
  const answer = await orLost(fetch(address(path), { method, headers, body, signal, cache: "no-store" }));
  if (!answer.ok) throw await refusal(answer);
  return answer;
}

export async function call(path, options) {
  return orLost((await request(path, options)).json());
}

// A promise whose failure means that the connection broke; an abort is the reader's own doing and stays one.
export async function orLost(promise) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Lost();
  }
}

async function refusal(answer) {
  const body = await answer.json().catch(() => null); // a proxy's page, say
  const error = new Refusal(answer.status, body?.error, answer.headers.get("Retry-After"));
  if (error.status === 401) unauthorized.forEach((listener) => listener(error));
  return error;
}
