// The tools that the model calls: their arguments, and a form for the results that the reader gives by hand.

import { copyButton } from "../lib/clipboard.js";
import { el, icon, unique } from "../lib/dom.js";
import { visible } from "../lib/visible.js";

export class ToolCalls {
  /** `onresults(texts)`: a result for every call. */
  constructor(onresults) {
    this.cards = [];
    this.list = el("div", { class: "calls" });
    this.send = el("button", { type: "submit", class: "primary" }, "Send result");
    this.hint = el("p", { class: "hint" }, "The model waits for what the tool returns: text or JSON.");
    this.actions = el("div", { class: "call-actions" }, this.hint, this.send);
    this.element = el("form", { class: "tool-calls" }, this.list, this.actions);
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      onresults(this.cards.map(({ field }) => field.value));
    });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.element.requestSubmit();
    });
  }

  /** `results`: the texts that were given, in order; `open`: results may be given. */
  update(calls, results, open) {
    for (const [index, call] of calls.entries()) {
      if (!call) continue;
      this.cards[index] ??= this.card();
      this.fill(this.cards[index], call, results[index], open);
    }
    this.actions.hidden = !open;
    this.send.textContent = calls.length > 1 ? "Send results" : "Send result";
  }

  card() {
    const id = unique("result");
    const name = el("code", { class: "call-name" });
    const given = el("pre", { tabindex: "0", dir: "ltr" });
    const field = el("textarea", { id, rows: "3", spellcheck: "false" });
    const label = el("label", { for: id }, "Result");
    const result = el("pre", { class: "call-result", tabindex: "0", dir: "auto" });
    const head = el("div", { class: "call-head" }, icon("tool"), el("span", { class: "call-kind" }, "Tool call"), name, copyButton(() => given.textContent));
    const answer = el("div", { class: "call-answer" }, label, field, result);
    this.list.append(el("section", { class: "call" }, head, given, answer));
    return { name, given, field, label, result, answer, id };
  }

  fill({ name, given, field, label, result, answer }, call, text, open) {
    name.textContent = visible(call.function.name);
    given.textContent = visible(pretty(call.function.arguments));
    field.hidden = !open;
    result.hidden = text === undefined;
    answer.hidden = !open && text === undefined;
    label.textContent = open ? `Result of ${visible(call.function.name)}` : "Result";
    if (text !== undefined) result.textContent = visible(pretty(text));
  }
}

/** Return JSON with indentation; other text as it is. */
function pretty(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? JSON.stringify(value, null, 2) : text;
  } catch {
    return text;
  }
}
