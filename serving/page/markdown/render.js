// Blocks and tokens of Markdown as elements. Text of the model only becomes text nodes, and addresses are checked.

import { copyButton } from "../lib/clipboard.js";
import { el } from "../lib/dom.js";
import { visible } from "../lib/visible.js";
import { parseInline } from "./inline.js";

const DEEPEST = 12; // of emphasis
const MOST_ROWS = 300;
const MOST_COLUMNS = 40;
const MOST_ELEMENTS = 6_000; // of one block; what follows is text

/** Return the element of a block. */
export function renderBlock(block, live = false) {
  return element(block, { left: MOST_ELEMENTS, live });
}

/** Return a block as it is written. */
export function plainBlock(block) {
  return el("pre", { class: "plain", dir: "auto" }, visible(block.source.join("\n")));
}

function element(block, budget) {
  budget.left -= 1;
  if (budget.left <= 0) return plainBlock(block);
  switch (block.type) {
    case "heading":
      // The page has h1 and h2 of its own.
      return inline(el(`h${Math.min(block.level + 2, 6)}`, { dir: "auto" }), block.text, budget);
    case "rule":
      return el("hr");
    case "code":
      return code(block);
    case "quote":
      return fill(el("blockquote"), block.blocks, budget);
    case "list":
      return list(block, budget);
    case "table":
      return table(block, budget);
    case "math":
      return el("p", { class: "math" }, visible(block.text));
    default:
      return inline(el("p", { dir: "auto" }), block.text, budget);
  }
}

function fill(parent, blocks, budget) {
  for (const block of blocks) parent.append(element(block, budget));
  return parent;
}

function code({ language, text }) {
  const content = el("code", {}, visible(text));
  const bar = el("div", { class: "code-bar" }, el("span", {}, visible(language) || "text"), copyButton(() => content.textContent));
  // The block scrolls sideways, so the keyboard must reach it.
  return el("div", { class: "code-block" }, bar, el("pre", { tabindex: "0", dir: "ltr" }, content));
}

function list({ ordered, from, items }, budget) {
  const parent = el(ordered ? "ol" : "ul", { dir: "auto", start: ordered && from !== 1 ? from : null });
  for (const [index, item] of items.entries()) {
    budget.left -= 1;
    if (budget.left <= 0) {
      const rest = items.slice(index).flatMap(({ source }) => source);
      parent.append(el("li", { class: "rest" }, plainBlock({ source: rest })));
      break;
    }
    const box = item.done === null ? null : el("span", { class: "task", role: "img", "aria-label": item.done ? "done" : "open" }, item.done ? "☑" : "☐");
    const entry = el("li", { class: box ? "has-task" : null }, box);
    // An item of one line needs no paragraph.
    const [first, ...others] = item.blocks;
    if (first?.type === "paragraph") inline(entry, first.text, budget);
    else if (first) entry.append(element(first, budget));
    parent.append(fill(entry, others, budget));
  }
  return parent;
}

function table({ head, align, rows, source }, budget) {
  if (head.length > MOST_COLUMNS) return plainBlock({ source });
  const cell = (tag, text, column) => inline(el(tag, { class: `align-${align[column]}`, dir: "auto" }), text ?? "", budget);
  const row = (tag, texts) => el("tr", {}, ...head.map((_, column) => cell(tag, texts[column], column)));
  const body = el("tbody");
  let shown = 0;
  while (shown < Math.min(rows.length, MOST_ROWS) && budget.left > 0) {
    budget.left -= head.length + 1;
    body.append(row("td", rows[shown++]));
  }
  const box = el("div", { class: "table-box", tabindex: "0" }, el("table", {}, el("thead", {}, row("th", head)), body));
  if (shown === rows.length) return box;
  return el("div", {}, box, plainBlock({ source: source.slice(shown + 2) }));
}

/** Add a text with its marks to an element. */
function inline(parent, text, budget) {
  const stack = [parent]; // the elements that are open
  for (const token of parseInline(text, budget.live)) {
    const top = stack.at(-1);
    if (token.text !== undefined) top.append(visible(token.text));
    else if (token.code !== undefined) top.append(el("code", {}, visible(token.code)));
    else if (token.lineBreak) top.append(el("br"));
    else if (token.close) {
      const closed = stack.length > 1 ? stack.pop() : null;
      if (closed !== stack.at(-1)) finish(closed);
    } else stack.push(open(top, token, stack.length, budget));
    budget.left -= token.text === undefined ? 1 : 0;
  }
  return parent;
}

function open(parent, { open: tag, href }, depth, budget) {
  if (depth > DEEPEST || budget.left <= 0) return parent; // deeper marks have no effect
  const child = tag === "a" ? el("a", { href, title: href, target: "_blank", rel: "noopener noreferrer" }) : el(tag);
  parent.append(child);
  return child;
}

/** A link whose text is another host's address says where it leads. */
function finish(element) {
  if (element?.tagName !== "A") return;
  const named = /^\s*(?:https?:\/\/)?(?:[^\s/@]{1,200}@)?((?:[\w-]{1,63}\.){1,10}[a-z]{2,20})(?![\w.])/i.exec(element.textContent.slice(0, 500));
  const host = new URL(element.href).hostname;
  if (named && host && named[1].toLowerCase() !== host && `www.${named[1].toLowerCase()}` !== host) {
    element.append(el("span", { class: "host" }, ` (${host})`));
  }
}
