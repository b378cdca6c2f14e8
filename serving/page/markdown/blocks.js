// The blocks of a Markdown text: headings, paragraphs, lists, quotes, code, tables. Time is linear in the text.

const DEEPEST = 8; // of quotes and lists inside each other; deeper ones are text
const FENCE = /^ *(`{3,}|~{3,})([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}>[ ]?/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])(?:[ \t]|$)/;
const DELIMITERS = /^[ \t]*\|?(?:[ \t]*:?-+:?[ \t]*\|)*[ \t]*:?-+:?[ \t]*\|?[ \t]*$/;
const LONGEST_RULE = 1000; // characters of a rule or of the line below a table's heading
const MATH = { "$$": "$$", "\\[": "\\]" };

/** Return the blocks of a text, each with the offset `start` of its first line and `end` of its first line. */
export function parseBlocks(text) {
  const lines = [];
  const offsets = [0];
  const ends = /\r\n|\n|\r/g;
  for (let match = ends.exec(text); match !== null; match = ends.exec(text)) {
    lines.push(text.slice(offsets.at(-1), match.index));
    offsets.push(ends.lastIndex);
  }
  lines.push(text.slice(offsets.at(-1)));
  offsets.push(text.length);
  return blocksOf(lines, 0).map((block) => ({ ...block, start: offsets[block.line], end: offsets[block.line + 1] }));
}

/** Return the blocks of lines; each has the number `line` of its first line, and `source`, its lines. */
function blocksOf(lines, depth) {
  const blocks = [];
  const open = { math: true }; // false when the rest has no end of a formula
  let at = 0;
  while (at < lines.length) {
    if (lines[at].trim() === "") {
      at += 1;
      continue;
    }
    const [block, next] = blockAt(lines, at, depth, open);
    blocks.push({ ...block, line: at, source: lines.slice(at, next) });
    at = next;
  }
  return blocks;
}

function blockAt(lines, at, depth, open) {
  const line = lines[at];
  const fence = FENCE.exec(line);
  if (fence) return code(lines, at, fence);
  const heading = HEADING.exec(line);
  if (heading) return [{ type: "heading", level: heading[1].length, text: headingText(line.slice(heading[0].length)) }, at + 1];
  if (isRule(line)) return [{ type: "rule" }, at + 1];
  if (depth < DEEPEST && QUOTE.test(line)) return quote(lines, at, depth);
  if (depth < DEEPEST && ITEM.test(line)) return list(lines, at, depth);
  if (isTable(lines, at)) return table(lines, at);
  const opening = line.trimStart().slice(0, 2);
  if (open.math && Object.hasOwn(MATH, opening)) {
    const closing = MATH[opening];
    for (let last = at; last < lines.length; last += 1) {
      const from = last === at ? line.indexOf(opening) + 2 : 0;
      if (lines[last].indexOf(closing, from) >= 0) return [{ type: "math", text: lines.slice(at, last + 1).join("\n") }, last + 1];
    }
    open.math = false;
  }
  return paragraph(lines, at, depth);
}

function code(lines, at, [, marks, info]) {
  const indent = lines[at].length - lines[at].trimStart().length;
  const closing = new RegExp(`^ *${marks[0] === "~" ? "~" : "\`"}{${marks.length},}[ \\t]*$`);
  let last = at + 1;
  while (last < lines.length && !closing.test(lines[last])) last += 1;
  // The line that begins after the last line break may still become the end of the block.
  const end = last === lines.length && lines[last - 1] === "" && last > at + 1 ? last - 1 : last;
  const text = lines.slice(at + 1, end).map((line) => dedent(line, indent)).join("\n");
  return [{ type: "code", language: info.trim().split(/\s/)[0].slice(0, 40), text, closed: last < lines.length }, last + 1];
}

function quote(lines, at, depth) {
  const inside = [];
  let next = at;
  while (next < lines.length && (QUOTE.test(lines[next]) || (next > at && continues(lines, next)))) {
    inside.push(lines[next].replace(QUOTE, ""));
    next += 1;
  }
  return [{ type: "quote", blocks: blocksOf(inside, depth + 1) }, next];
}

/** An item has the lines that are indented below its marker, by two spaces or more: models rarely count them. */
function list(lines, at, depth) {
  const first = ITEM.exec(lines[at]);
  const base = first[1].length;
  const ordered = isOrdered(first);
  const items = [];
  let next = at;
  while (next < lines.length) {
    const item = ITEM.exec(lines[next]);
    if (!item || item[1].length > base + 1 || isOrdered(item) !== ordered || isRule(lines[next])) break;
    const width = item[0].length;
    const inside = [lines[next].slice(width)];
    next += 1;
    for (;;) {
      let following = next;
      while (following < lines.length && lines[following].trim() === "") following += 1;
      if (following >= lines.length) break;
      const indented = indentOf(lines[following]) >= base + 2;
      if (!indented && (following > next || !continues(lines, next))) break;
      while (next < following) inside.push(lines[next++]);
      inside.push(dedent(lines[next++], Math.min(width, indentOf(lines[following]))));
    }
    items.push({ ...task(inside), source: inside });
    let following = next;
    while (following < lines.length && lines[following].trim() === "") following += 1;
    if (following < lines.length && ITEM.test(lines[following])) next = following;
  }
  for (const item of items) item.blocks = blocksOf(item.lines, depth + 1);
  return [{ type: "list", ordered, from: ordered ? Number.parseInt(first[2], 10) : 1, items }, next];
}

/** Return the lines of an item, and its state where it is one of a list of tasks. */
function task(lines) {
  const match = /^[ \t]*\[([ xX])\][ \t]+/.exec(lines[0]);
  return match ? { done: match[1] !== " ", lines: [lines[0].slice(match[0].length), ...lines.slice(1)] } : { done: null, lines };
}

function table(lines, at) {
  const head = cells(lines[at]);
  const align = cells(lines[at + 1]).map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "left"));
  const rows = [];
  let next = at + 2;
  while (next < lines.length && lines[next].trim() !== "" && !startsBlock(lines[next])) rows.push(cells(lines[next++]));
  return [{ type: "table", head, align, rows }, next];
}

function paragraph(lines, at, depth) {
  let next = at + 1;
  while (next < lines.length && lines[next].trim() !== "" && !interrupts(lines, next, depth)) next += 1;
  return [{ type: "paragraph", text: lines.slice(at, next).map((line) => line.trimStart()).join("\n") }, next];
}

function interrupts(lines, at, depth) {
  const item = depth < DEEPEST ? ITEM.exec(lines[at]) : null;
  return startsBlock(lines[at]) || (item && item[0].length < lines[at].length) || isTable(lines, at);
}

/** Tell whether a line is more text of the paragraph before it. */
function continues(lines, at) {
  return lines[at].trim() !== "" && lines[at - 1].trim() !== "" && !startsBlock(lines[at]) && !ITEM.test(lines[at]);
}

function startsBlock(line) {
  return FENCE.test(line) || HEADING.test(line) || QUOTE.test(line) || isRule(line);
}

function isRule(line) {
  return line.length < LONGEST_RULE && RULE.test(line);
}

function isOrdered(item) {
  return item[2].length > 1;
}

function isTable(lines, at) {
  const below = lines[at + 1];
  if (below === undefined || below.length > LONGEST_RULE || !lines[at].includes("|") || !below.includes("|")) return false;
  return DELIMITERS.test(below) && cells(lines[at]).length === cells(below).length;
}

/** Return the cells of a table's line; `\|` is part of a cell. */
function cells(line) {
  const inner = line.trim().replace(/^\|/, "");
  const found = inner.split(/(?<!\\)\|/);
  if (found.length > 1 && found.at(-1).trim() === "") found.pop();
  return found.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function headingText(text) {
  return text.trim().replace(/(?:^|[ \t])#{1,1000}$/, "").trim();
}

function indentOf(line) {
  return line.length - line.trimStart().length;
}

function dedent(line, width) {
  return line.slice(Math.min(width, indentOf(line)));
}
