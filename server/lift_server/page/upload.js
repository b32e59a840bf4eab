// Add a document: dropped anywhere on the page, chosen, or pasted. In: files and text. Out: `onUploaded` with the
// document object. What was typed stays until the server has it.

import { call } from "./api.js";
import { el } from "./elements.js";
import { bytes } from "./format.js";
import { announce, problem } from "./notices.js";

const KINDS = "PDF, Word, PowerPoint, Excel, OpenDocument, EPUB, HTML, e-mail, text, or a ZIP. It is learned at once.";

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
      this.#sendFiles(files);
    });
    takeDrops((files) => this.#sendFiles(files));
    takePastes((files) => this.#sendFiles(files), (text) => this.#take(text));
  }

  sendText(given) {
    const json = given.title ? given : { text: given.text };
    return this.#send("The text", { json }, () => this.#clear(given), () => this.sendText(given));
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
    );
  }

  async #sendFiles(files) {
    const title = files.length === 1 ? this.#title.value.trim() : ""; // one title cannot name several
    for (const [at, one] of files.entries()) {
      const form = new FormData();
      form.append("file", one, one.name);
      if (title) form.append("title", title);
      const done = () => this.#clear({ title });
      const again = () => this.#sendFiles(files.slice(at));
      if (!(await this.#send(`${one.name} (${bytes(one.size)})`, { form }, done, again))) return;
    }
  }

  async #send(what, options, done, again) {
    this.#state.replaceChildren(el("p", { class: "hint" }, `Sending ${what} …`));
    try {
      const shown = await call("/documents", { method: "POST", ...options });
      this.#state.replaceChildren();
      done();
      announce(`${what} is there and will be learned.`);
      this.#onUploaded(shown);
      return true;
    } catch (error) {
      this.#state.replaceChildren(problem(error, again));
      return false;
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
