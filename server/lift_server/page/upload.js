// Add a document: dropped anywhere on the page, chosen, or pasted. In: files and text. Out: `onUploaded` with the
// document object; of several files those that are refused are listed, the others are sent. What was typed stays until
// the server has it.

import { call } from "./api.js";
import { el } from "./elements.js";
import { bytes } from "./format.js";
import { announce, problem } from "./notices.js";

const KINDS = "PDF, Word, PowerPoint, Excel, OpenDocument, EPUB, HTML, e-mail, text, ZIP, tar. It is learned at once.";

export const EXAMPLE = {
  title: "Station log",
  text:
    "The lighthouse at Varn Point was built in 1874 by Edda Holm. Its lamp burns rapeseed oil. " +
    "The keeper's dog is called Brisket. Ships are warned by three long blasts of the horn.",
};

export class Upload {
  #title = el("input", { id: "title", autocomplete: "off", maxlength: "512" });
  #file = el("input", { id: "file", type: "file", class: "unseen", multiple: true });
  #text = el("textarea", { id: "text", rows: "5", spellcheck: "false" });
  #pasted = el("details", { class: "paste" }, el("summary", {}, "Paste text instead"));
  #state = el("div", { "aria-live": "polite" });
  #refused = el("div", { class: "refused" });
  #onUploaded;

  constructor(form, onUploaded) {
    this.#onUploaded = onUploaded;
    this.#fill(form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.sendText({ title: this.#title.value.trim(), text: this.#text.value });
    });
    this.#file.addEventListener("change", () => {
      const files = [...this.#file.files];
      this.#file.value = ""; // the same file can be chosen again
      this.#takeFiles(files);
    });
    takeDrops((files) => this.#takeFiles(files));
    takePastes((files) => this.#takeFiles(files), (text) => this.#take(text));
  }

  async sendText(given) {
    const json = given.title ? given : { text: given.text };
    this.#refused.replaceChildren();
    const error = await this.#send("The text", { json }, () => this.#clear(given));
    if (error) this.#state.replaceChildren(problem(error, () => this.sendText(given)));
  }

  #fill(form) {
    const learn = el("button", { type: "submit", class: "primary wide" }, "Learn this text");
    this.#pasted.append(el("label", { for: "text" }, "Text"), this.#text, learn);
    form.append(
      el("label", { for: "title" }, "Title ", el("span", { class: "hint" }, "(optional)")),
      this.#title,
      el("label", { class: "drop", for: "file" }, this.#file, el("strong", {}, "Drop a document here"),
        el("span", {}, "or choose a file"),
        el("span", { class: "hint" }, KINDS)),
      this.#pasted,
      this.#state,
      this.#refused,
    );
  }

  #takeFiles(files) {
    this.#refused.replaceChildren();
    this.#sendFiles(files, files.length === 1 ? this.#title.value.trim() : ""); // one title cannot name several
  }

  async #sendFiles(files, title) {
    for (const [at, one] of files.entries()) {
      const form = new FormData();
      form.append("file", one, one.name);
      if (title) form.append("title", title);
      const error = await this.#send(`${one.name} (${bytes(one.size)})`, { form }, () => this.#clear({ title }));
      if (error && !isOfOne(error)) {
        this.#state.replaceChildren(problem(error, () => this.#sendFiles(files.slice(at), title)));
        return;
      }
      if (error) this.#refused.append(problem(error, null, one.name));
    }
  }

  // Null, or why it is not there.
  async #send(what, options, done) {
    this.#state.replaceChildren(el("p", { class: "hint" }, `Sending ${what} …`));
    try {
      const shown = await call("/documents", { method: "POST", ...options });
      done();
      announce(`${what} is there and will be learned.`);
      this.#onUploaded(shown);
      return null;
    } catch (error) {
      return error;
    } finally {
      this.#state.replaceChildren();
    }
  }

  #clear({ title, text }) {
    if (this.#text.value === text) this.#text.value = "";
    if (this.#title.value.trim() === title) this.#title.value = "";
  }

  #take(text) {
    this.#pasted.open = true;
    this.#text.value = text;
    this.#text.focus();
  }
}

// Whether a file was refused for what it is; a missing key, or too many requests, meets those behind it too.
function isOfOne({ status, retryAfter }) {
  return status >= 400 && status < 500 && status !== 401 && !retryAfter;
}

// The whole page takes a drop, or the browser would open the file in its place.
function takeDrops(sendFiles) {
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

function takePastes(sendFiles, takeText) {
  addEventListener("paste", (event) => {
    if (event.target.closest?.("input, textarea, dialog")) return; // meant for that field
    const { files } = event.clipboardData;
    const text = event.clipboardData.getData("text/plain");
    if (files.length) sendFiles([...files]);
    else if (text) takeText(text);
  });
}
