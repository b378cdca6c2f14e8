// The models of the server: the list to choose from, and the card of the chosen one.

import { get } from "../api.js";
import { byId, el, icon } from "../lib/dom.js";
import { bytes, count } from "../lib/numbers.js";
import { kept } from "../lib/storage.js";
import { visible } from "../lib/visible.js";

const CHOSEN = "intaglio.model";
const TASKS = {
  "text-generation": "Text",
  "text-classification": "Classification",
  "token-classification": "Tags of tokens",
  "question-answering": "Question answering",
  "feature-extraction": "Embeddings",
};
const VERDICTS = {
  faithful: ["faithful", "check", "Compared with its source: the same within the limits."],
  drifted: ["drifted", "drift", "Compared with its source: it differs more than a faithful copy would."],
  broken: ["broken", "cross", "Compared with its source: it does not compute the same."],
  "not checked": ["not checked", "dash", "Nobody has compared this artifact with its source yet."],
};

export class Models {
  /** `onchoose(model)`: one of the list is chosen. */
  constructor(onchoose) {
    this.select = byId("model");
    this.chip = byId("verdict");
    this.card = byId("card");
    this.onchoose = onchoose;
    this.list = [];
    this.select.addEventListener("change", () => this.choose(this.select.value));
  }

  get chosen() {
    return this.list.find(({ id }) => id === this.select.value) ?? null;
  }

  /** Read the list of the server. Throws ApiError. */
  async load() {
    this.list = (await get("v1/models")).data.map((model) => ({ task: "text-generation", chat: true, ...model }));
    const groups = Object.entries(TASKS).map(([task, label]) => {
      const options = this.list.filter((model) => model.task === task).map(({ id }) => el("option", { value: id }, visible(id)));
      return options.length > 0 ? el("optgroup", { label }, ...options) : null;
    });
    this.select.replaceChildren(...groups.filter((group) => group !== null));
    this.choose(this.list.find(({ id }) => id === kept.getItem(CHOSEN))?.id ?? this.select.value);
  }

  choose(id) {
    this.select.value = id;
    if (!this.chosen) return;
    kept.setItem(CHOSEN, id);
    this.show(this.chosen);
    this.onchoose(this.chosen);
  }

  show(model) {
    const verdict = model.parity?.verdict ?? model.verdict ?? null;
    const [word, mark, meaning] = VERDICTS[verdict] ?? ["about", "dash", null];
    this.chip.hidden = false;
    this.chip.className = `chip verdict-${word.replace(" ", "-")}`;
    this.chip.replaceChildren(icon(mark), el("span", { class: "caption" }, word));
    this.chip.setAttribute("aria-label", `About ${model.id}: ${word}`);
    const rows = facts(model).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", { dir: "auto" }, visible(String(value)))));
    this.card.replaceChildren(
      el("h2", {}, visible(model.id)),
      meaning && el("p", { class: `verdict-line verdict-${word.replace(" ", "-")}` }, icon(mark), el("span", {}, el("b", {}, word), ` – ${meaning}`)),
      el("dl", {}, ...rows),
    );
  }
}

function facts(model) {
  const { family, precision, cache_dtype: cache, context_length: context, source, labels } = model;
  const rows = [
    ["Task", TASKS[model.task] ?? model.task],
    ["Family", family],
    ["Precision", precision && (cache ? `${precision}, cache ${cache}` : precision)],
    ["Parameters", model.parameters && count(model.parameters)],
    ["Size", model.bytes && bytes(model.bytes)],
    ["Context", context && `${count(context)} tokens`],
    ["Source", source && (typeof source === "string" ? source : [source.id, source.revision?.slice(0, 12)].filter(Boolean).join(" @ "))],
    ["Checked", model.parity?.date],
    ["Labels", labels?.length > 0 && labels.slice(0, 40).join(", ")],
    ["Can", model.task === "text-generation" && abilities(model).join(", ")],
  ];
  return rows.filter(([, value]) => value);
}

function abilities({ chat, thinking, tools }) {
  return [chat ? "chat" : "continue texts", thinking && "think first", tools && "call tools"].filter(Boolean);
}
