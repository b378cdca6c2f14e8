// The answers of the tasks as elements.

import { el } from "../lib/dom.js";
import { short } from "../lib/numbers.js";
import { visible } from "../lib/visible.js";

const MOST = 40;

/** Return the classes of a text with their probabilities, the likeliest first. */
export function classes({ data }, labels) {
  const { label, probs } = data[0];
  const rows = probs.map((value, at) => [labels?.[at] ?? (probs.length === 1 ? label : `class ${at}`), value]);
  rows.sort((a, b) => b[1] - a[1]);
  return el("table", { class: "classes" }, el("tbody", {}, ...rows.slice(0, MOST).map(([name, value]) => {
    const meter = el("meter", { min: "0", max: "1", value });
    return el("tr", {}, el("th", { scope: "row" }, visible(String(name))), el("td", { class: "share" }, meter), el("td", { class: "figure" }, short(value)));
  })));
}

/** Return the text with its tagged spans. */
export function tags({ data }, text) {
  return marked(text, data[0].tags.map(({ start, end, label, score }) => ({ start, end, title: `${label} ${short(score)}`, label })));
}

/** Return the text with the answer marked, and how sure the model is. */
export function answer({ data }, text) {
  if (data.length === 0) return el("p", { class: "hint" }, "The text does not have the answer.");
  const best = data[0];
  return el(
    "div",
    {},
    el("p", { class: "answer", dir: "auto" }, visible(best.text)),
    el("p", { class: "hint" }, `score ${short(best.score)}`),
    marked(text, [best]),
  );
}

/** Return a table of the cosine similarity of each pair of texts. */
export function similarities({ data }, texts) {
  const vectors = data.map(({ embedding }) => embedding);
  const number = (at) => el("th", { scope: "col" }, String(at + 1));
  const rows = vectors.slice(0, MOST).map((row, at) => el("tr", {}, el("th", { scope: "row", dir: "auto" }, `${at + 1}  ${visible(texts[at])}`), ...vectors.slice(0, MOST).map((other) => {
    const value = cosine(row, other);
    return el("td", { class: `figure heat-${Math.max(0, Math.min(8, Math.round(value * 8)))}` }, value.toFixed(2));
  })));
  return el("div", { class: "table-box", tabindex: "0" }, el("table", { class: "similarities" }, el("thead", {}, el("tr", {}, el("td"), ...vectors.slice(0, MOST).map((_, at) => number(at)))), el("tbody", {}, ...rows)));
}

/** Return a text with marked spans; offsets are of code points. */
function marked(text, spans) {
  const points = [...text];
  const shown = el("p", { class: "marked", dir: "auto" });
  let at = 0;
  for (const { start, end, label, title } of [...spans].sort((a, b) => a.start - b.start)) {
    if (start < at) continue;
    const mark = el("mark", { title: title ?? null }, visible(points.slice(start, end).join("")));
    if (label) mark.append(el("span", { class: "tag" }, visible(label)));
    shown.append(visible(points.slice(at, start).join("")), mark);
    at = end;
  }
  shown.append(visible(points.slice(at).join("")));
  return shown;
}

function cosine(a, b) {
  let [product, left, right] = [0, 0, 0];
  for (const [at, value] of a.entries()) {
    product += value * b[at];
    left += value * value;
    right += b[at] * b[at];
  }
  return product / (Math.sqrt(left * right) || 1);
}
