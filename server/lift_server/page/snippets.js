// What was just done, as code to take along. In: a document, or a question. Out: text for curl and for Python, and the
// element that shows both. A key is never in it: both read LIFT_API_KEY.

import { address, keyStore, orLost, request } from "./api.js";
import { button, el } from "./elements.js";
import { announce } from "./notices.js";

const SHOWN_BYTES = 10_000; // of a text that was typed: a longer one is read from a file

// Of a file, or of a text that came without one.
export async function uploadSnippets({ id, filename, title, bytes }) {
  if (filename || bytes > SHOWN_BYTES) return fileSnippets(filename ?? "document.txt", title);
  const text = await orLost((await request(`/documents/${id}/content`)).text());
  return bodySnippets(title ? { text, title } : { text });
}

function fileSnippets(file, title) {
  const part = quoted(`file=@"${file.replace(/["\\]/g, "\\$&")}"`);
  const titlePart = title ? ` --form-string ${quoted(`title=${title}`)}` : ""; // -F would read a file for an @
  const opened = `open(${json(file)}, "rb")`;
  const python = title
    ? `document = client.post("/documents", cast_to=object, files={"file": ${opened}}, body={"title": ${json(title)}},
                       options={"headers": {"Content-Type": "multipart/form-data"}})
print(document["id"], document["status"])
`
    : `document = client.files.create(file=${opened}, purpose="user_data")
print(document.id)
`;
  return {
    curl: `curl -sS ${address("/documents")}${keyForShell()} \\\n  -F ${part}${titlePart}\n`,
    python: `${client()}${python}`,
  };
}

// The one training for all questions that name these `document_ids`.
export function setSnippets({ document_ids, title }) {
  return bodySnippets({ document_ids, title });
}

function bodySnippets(body) {
  return {
    curl: `curl -sS ${address("/documents")}${keyForShell()} \\
  -H 'Content-Type: application/json' -d @- <<'END'
${JSON.stringify(body, null, 1)}
END
`,
    python: `${client()}document = client.post("/documents", cast_to=object, body=${json(body)})
print(document["id"], document["status"])
`,
  };
}

// `body` as it is sent to /v1/chat/completions.
export function questionSnippets({ model, messages, temperature, document_id, lift }) {
  const body = JSON.stringify({ model, document_id, lift, messages, temperature, stream: true }, null, 1);
  return {
    curl: `curl -sS -N ${address("/chat/completions")}${keyForShell()} \\
  -H 'Content-Type: application/json' -d @- <<'END'
${body}
END
`,
    python: `${client()}stream = client.chat.completions.create(
    model=${json(model)},
    messages=${json(messages)},
    temperature=${json(temperature)},
    stream=True,
    extra_body=${json({ document_id, lift })},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
print(chunk.lift)  # how the answer came about
`,
  };
}

// `make` is called when it is opened: most never are.
export function codeDetails(title, make) {
  const details = el("details", { class: "code" }, el("summary", {}, title));
  details.addEventListener("toggle", async () => {
    if (!details.open || details.children.length > 1) return;
    try {
      const { curl, python } = await make();
      details.replaceChildren(details.firstChild, block("curl", curl), block("Python (pip install openai)", python));
    } catch (error) {
      details.open = false; // to be opened again
      announce(error.message);
    }
  });
  return details;
}

function block(name, text) {
  const code = el("code", {}, text);
  const copy = button("Copy", () => copied(copy, code), { "aria-label": `Copy the code for ${name}` });
  return el("figure", {}, el("figcaption", {}, el("span", {}, name), copy), el("pre", { tabindex: "0" }, code));
}

// The text of `code` to the clipboard; `copy`, the button, says how that went.
export async function copied(copy, code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    copy.textContent = "Copied";
  } catch { // plain HTTP on another machine, or not allowed: the browser's own copy still works
    getSelection().selectAllChildren(code);
    copy.textContent = "Selected: press Ctrl+C";
  }
}

function client() {
  const [head, key] = keyStore.get() ? ["import os\n", 'os.environ["LIFT_API_KEY"]'] : ["", '"none"'];
  return `${head}from openai import OpenAI\nclient = OpenAI(base_url=${json(address(""))}, api_key=${key})\n`;
}

function keyForShell() {
  return keyStore.get() ? ' -H "Authorization: Bearer $LIFT_API_KEY"' : "";
}

// One word for a shell, whatever is in it.
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

// Strings, lists and objects of strings: JSON is Python too.
function json(value) {
  return JSON.stringify(value);
}
