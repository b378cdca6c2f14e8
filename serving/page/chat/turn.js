// A message and what can be done with it.

import { copyButton } from "../lib/clipboard.js";
import { el, icon, iconButton } from "../lib/dom.js";
import { visible } from "../lib/visible.js";
import { MarkdownView } from "../markdown/view.js";
import { figures, note } from "./facts.js";
import { Thought } from "./thought.js";
import { ToolCalls } from "./tool_calls.js";

/** The buttons that show another branch: ‹ 2 / 3 ›. */
class Branches {
  constructor(onchoose) {
    this.position = el("span", { class: "position" });
    this.back = iconButton("back", "Show the version before", () => onchoose(-1));
    this.next = iconButton("next", "Show the version after", () => onchoose(1));
    this.element = el("span", { class: "branches" }, this.back, this.position, this.next);
  }

  update(node, alternatives, busy) {
    const at = alternatives.findIndex(({ id }) => id === node.id);
    this.element.hidden = alternatives.length < 2;
    this.position.textContent = `${at + 1} / ${alternatives.length}`;
    this.back.disabled = busy || at === 0;
    this.next.disabled = busy || at === alternatives.length - 1;
  }
}

function step(node, alternatives, by) {
  return alternatives[alternatives.findIndex(({ id }) => id === node.id) + by];
}

/** A message of the user: its text as it was typed, which can be edited and sent again. */
export class UserTurn {
  constructor(node, actions) {
    this.node = node;
    this.actions = actions;
    this.alternatives = [];
    this.text = el("div", { class: "bubble", dir: "auto" }, visible(node.content));
    this.branches = new Branches((by) => actions.choose(step(node, this.alternatives, by)));
    this.edit = iconButton("edit", "Edit and send again", () => this.startEdit());
    this.tools = el("div", { class: "turn-tools" }, this.branches.element, copyButton(() => node.content), this.edit);
    this.element = el("li", { class: "turn user" }, el("h2", { class: "offscreen" }, "You"), this.text, this.tools);
  }

  update({ alternatives, busy }) {
    this.alternatives = alternatives;
    this.edit.disabled = busy;
    this.branches.update(this.node, alternatives, busy);
  }

  startEdit() {
    const field = el("textarea", { class: "edit-field", "aria-label": "Your message", rows: "2" });
    const cancel = el("button", { type: "button", class: "quiet" }, "Cancel");
    const form = el("form", { class: "edit" }, field, el("div", { class: "edit-actions" }, cancel, el("button", { type: "submit", class: "primary" }, "Send")));
    const end = () => {
      form.replaceWith(this.text);
      this.tools.hidden = false;
      this.edit.focus();
    };
    field.value = this.node.content;
    cancel.addEventListener("click", end);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (field.value.trim() === "") return;
      end();
      this.actions.edit(this.node, field.value);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.preventDefault();
        end();
      } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.text.replaceWith(form);
    this.tools.hidden = true;
    field.focus();
  }
}

/** A message of the model: thought, text, tool calls, and figures. */
export class ModelTurn {
  constructor(node, actions) {
    this.node = node;
    this.alternatives = [];
    this.thought = new Thought();
    this.text = el("div", { class: "prose answer-text" });
    this.markdown = new MarkdownView(this.text);
    this.calls = new ToolCalls((texts) => actions.results(node, texts));
    this.waiting = el("p", { class: "waiting" }, el("span", { class: "dot" }), el("span", { class: "dot" }), el("span", { class: "dot" }), el("span", { class: "offscreen" }, "The model reads"));
    this.note = el("p", { class: "note" });
    this.branches = new Branches((by) => actions.choose(step(node, this.alternatives, by)));
    this.again = iconButton("again", "Another answer", () => actions.regenerate(node));
    this.figures = el("ul", { class: "figures", "aria-label": "Figures of this answer" });
    this.tools = el("div", { class: "turn-tools" }, this.branches.element, copyButton(() => node.content), this.again, this.figures);
    this.element = el("li", { class: "turn model" }, el("h2", { class: "offscreen" }, "Model"), this.thought.element, this.text, this.calls.element, this.waiting, this.note, this.tools);
  }

  update({ alternatives, busy, results, last }) {
    const { content, reasoning_content: thought, tool_calls: calls, facts } = this.node;
    this.alternatives = alternatives;
    this.thought.element.hidden = !thought;
    if (thought) this.thought.update(thought, facts);
    this.markdown.update(content, facts.running === true);
    this.text.hidden = content === "";
    this.calls.element.hidden = !calls;
    if (calls) this.calls.update(calls, results, last && !facts.running && results.length === 0);
    this.waiting.hidden = !facts.running || Boolean(content || thought || calls);
    this.element.setAttribute("aria-busy", String(facts.running === true));
    this.tools.hidden = facts.running === true;
    this.again.disabled = busy;
    this.branches.update(this.node, alternatives, busy);
    this.showNote(facts);
    if (!facts.running) this.figures.replaceChildren(...figures(facts).map(([text, title]) => el("li", { title }, text)));
  }

  showNote(facts) {
    const found = note(facts);
    this.note.hidden = found === null;
    this.note.className = `note ${found?.kind ?? ""}`;
    this.note.replaceChildren(...(found ? [icon(found.kind === "error" ? "warning" : "stop"), el("span", {}, visible(found.text))] : []));
  }
}
