// A form for each task that is not a conversation, to try a model.

import { post } from "../api.js";
import { byId, el, unique } from "../lib/dom.js";
import { visible } from "../lib/visible.js";
import { answer, classes, similarities, tags } from "./results.js";

/** task → what the form asks for, the request that it becomes, and how the answer is shown. */
const FORMS = {
  "text-classification": {
    title: "Classify a text",
    fields: [["text", "Text", "A moving film, and the music is wonderful."]],
    request: (model, { text }) => ["v1/classify", { model, input: text }],
    show: (response, _, { labels }) => classes(response, labels),
  },
  "token-classification": {
    title: "Tag the tokens of a text",
    fields: [["text", "Text", "Marie Curie was born in Warsaw."]],
    request: (model, { text }) => ["v1/token_classify", { model, input: text, aggregation_strategy: "simple" }],
    show: (response, { text }) => tags(response, text),
  },
  "question-answering": {
    title: "Answer a question from a text",
    fields: [["question", "Question", "Where was Marie Curie born?"], ["context", "Text", "Marie Curie was born in Warsaw, and worked in Paris."]],
    request: (model, { question, context }) => ["v1/answer", { model, question, context }],
    show: (response, { context }) => answer(response, context),
  },
  "feature-extraction": {
    title: "Compare texts",
    fields: [["text", "Texts, one a line", "The river rises in the mountains.\nThe stream begins in the hills.\nShe sold her bicycle."]],
    request: (model, { text }) => ["v1/embeddings", { model, input: lines(text) }],
    show: (response, { text }) => similarities(response, lines(text)),
  },
  // a text-generation model without a chat template
  "text-generation": {
    title: "Continue a text",
    fields: [["text", "Text", "The history of the city"]],
    request: (model, { text }) => ["v1/completions", { model, prompt: text, max_tokens: 64 }],
    show: ({ choices }, { text }) => el("p", { class: "continued", dir: "auto" }, visible(text), el("mark", {}, visible(choices[0].text))),
  },
};

/** Show the form of a model's task. */
export function showTask(model) {
  const { title, fields, request, show } = FORMS[model.task];
  const inputs = fields.map(([name, label, example]) => ({ name, label, id: unique("task"), example }));
  const output = el("output", { class: "task-output" });
  const run = el("button", { type: "submit", class: "primary" }, "Run");
  const form = el("form", { class: "task-form" });
  for (const input of inputs) {
    input.field = el("textarea", { id: input.id, rows: input.name === "question" ? "1" : "4", required: true, dir: "auto" });
    input.field.value = input.example;
    form.append(el("label", { for: input.id }, input.label), input.field);
  }
  form.append(el("div", { class: "task-actions" }, run));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(inputs.map(({ name, field }) => [name, field.value]));
    run.disabled = true;
    try {
      output.replaceChildren(show(await post(...request(model.id, values)), values, model));
    } catch (error) {
      output.replaceChildren(el("p", { class: "problem" }, visible(error.message)));
    } finally {
      run.disabled = false;
    }
  });
  byId("task").replaceChildren(el("h2", {}, title), form, output);
}

function lines(text) {
  return text.split("\n").filter((line) => line.trim() !== "");
}
