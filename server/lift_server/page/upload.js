// Add a document: dropped anywhere on the page, chosen, or pasted. In: files and text. Out: `onUploaded` with the
// document object. What was typed stays until the server has it.

import { call } from "./api.js";
import { el } from "./elements.js";
import { bytes } from "./format.js";
import { announce, problem } from "./notices.js";

export const EXAMPLE = {
  title: "Station log",
  text:
    "The lighthouse at Varn Point was built in 1874 by Edda Holm. Its lamp burns rapeseed oil. " +
    "The keeper's dog is called Brisket. Ships are warned by three long blasts of the horn.",
};

// Returns what uploads a text: the example's button calls it too.
export function setUpUpload(form, onUploaded) {
  const title = el("input", { id: "title", autocomplete: "off", maxlength: "512" });
  const file = el("input", { id: "file", type: "file", class: "unseen", accept: ".txt,.md,.markdown,text/*", multiple: true });
  const text = el("textarea", { id: "text", rows: "5", spellcheck: "false" });
  const pasted = el("details", { class: "paste" }, el("summary", {}, "Paste text instead"));
  const learn = el("button", { type: "submit", class: "primary wide" }, "Learn this text");
  const state = el("div", { "aria-live": "polite" });
  pasted.append(el("label", { for: "text" }, "Text"), text, learn);
  form.append(
    el("label", { for: "title" }, "Title ", el("span", { class: "hint" }, "(optional)")),
    title,
    el("label", { class: "drop", for: "file" }, file, el("strong", {}, "Drop a document here"), el("span", {}, "or choose a file"),
      el("span", { class: "hint" }, "Plain text or Markdown. Learning starts at once.")),
    pasted,
    state,
  );

  async function send(what, options, done, again) {
    state.replaceChildren(el("p", { class: "hint" }, `Sending ${what} …`));
    try {
      const shown = await call("/documents", { method: "POST", ...options });
      state.replaceChildren();
      done();
      announce(`${what} is there and will be learned.`);
      onUploaded(shown);
      return true;
    } catch (error) {
      state.replaceChildren(problem(error, again));
      return false;
    }
  }

  function sendText(given) {
    const json = given.title ? given : { text: given.text };
    return send("The text", { json }, () => clear(given), () => sendText(given));
  }

  function clear(sent) {
    if (text.value === sent.text) text.value = "";
    if (title.value.trim() === sent.title) title.value = "";
  }

  async function sendFiles(files) {
    const given = files.length === 1 ? title.value.trim() : ""; // one title cannot name several
    for (const [at, one] of files.entries()) {
      const form = new FormData();
      form.append("file", one, one.name);
      if (given) form.append("title", given);
      const again = () => sendFiles(files.slice(at));
      if (!(await send(`${one.name} (${bytes(one.size)})`, { form }, () => clear({ title: given }), again))) return;
    }
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    sendText({ title: title.value.trim(), text: text.value });
  });
  file.addEventListener("change", async () => {
    const files = [...file.files];
    file.value = ""; // the same file can be chosen again
    await sendFiles(files);
  });
  setUpDrop(sendFiles);
  setUpPaste(sendFiles, (given) => {
    pasted.open = true;
    text.value = given;
    text.focus();
  });
  return sendText;
}

// The whole page takes a drop, or the browser would open the file in its place.
function setUpDrop(sendFiles) {
  const over = (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  };
  const done = () => document.body.classList.remove("dropping");
  addEventListener("dragover", over);
  addEventListener("dragleave", (event) => event.relatedTarget ?? done());
  addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    done();
    sendFiles([...event.dataTransfer.files]);
  });
}

function setUpPaste(sendFiles, takeText) {
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input, textarea, dialog")) return; // meant for that field
    const { files } = event.clipboardData;
    const text = event.clipboardData.getData("text/plain");
    if (files.length) sendFiles([...files]);
    else if (text) takeText(text);
  });
}
