// The model's thought: open while it thinks, then folded under the time that it took.

import { el, icon } from "../lib/dom.js";
import { duration } from "../lib/numbers.js";
import { MarkdownView } from "../markdown/view.js";

export class Thought {
  constructor() {
    this.caption = el("span", {}, "Thinking…");
    this.summary = el("summary", {}, icon("thought"), this.caption, icon("chevron"));
    this.text = el("div", { class: "thought-text prose" });
    this.element = el("details", { class: "thought" }, this.summary, this.text);
    this.markdown = new MarkdownView(this.text);
    this.touched = false; // the reader has opened or closed it
    this.summary.addEventListener("click", () => { this.touched = true; });
  }

  update(text, { thought, running }) {
    const thinking = running === true && thought === undefined;
    this.element.classList.toggle("is-thinking", thinking);
    this.caption.textContent = thinking ? "Thinking…" : thought === undefined ? "Thought" : `Thought for ${duration(thought)}`;
    if (!this.touched) this.element.open = thinking;
    this.markdown.update(text, thinking);
  }
}
