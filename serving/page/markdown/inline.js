// The marks inside a paragraph, as a flat list of tokens: text, code, links, emphasis. Bounded work for any text.

const LONGEST = 100_000; // characters; a longer text has no marks
const MOST = 4_000; // tokens
const SPECIAL = /[\\`*_~[\]!<$\n]|https?:\/\//g;
const TARGET = /\([ \t]*<?([^\s<>()]{1,2000}(?:\([^\s()]{0,200}\)[^\s()<>]{0,200})?)>?(?:[ \t]+"[^"\n]{0,300}")?[ \t]*\)/y;
const ANGLE = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000})>/y;
const BREAK = /<br[ \t]*\/?>/iy;
const BARE = /https?:\/\/[^\s<>[\]"'`\u202a-\u202e\u2066-\u2069]{1,2000}/y;
const PROTOCOLS = new Set(["http:", "https:", "mailto:"]);
const PUNCTUATION = /[\p{P}\p{S}]/u;
const TAGS = { "*": ["em", "strong"], _: ["em", "strong"], "~": ["del", "del"] };

/** Return the address of a link; null where it is not of the web or of mail. */
export function safeHref(address) {
  try {
    const url = new URL(address);
    return PROTOCOLS.has(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

/**
 * Return the tokens of a text: {text}, {code}, {open, href}, {close} and {lineBreak}.
 * With `live`, strong text that is not closed yet is closed at the end, so that it does not change when it is.
 */
export function parseInline(text, live = false) {
  if (text.length > LONGEST) return [{ text }];
  return new Scanner(text, live).tokens() ?? [{ text }];
}

class Scanner {
  constructor(text, live) {
    this.text = text;
    this.live = live;
    this.at = 0;
    this.found = [];
    this.runs = []; // of * _ ~ that may still be emphasis
    this.brackets = [];
    this.missing = new Set(); // closing marks that the rest of the text does not have
  }

  /** Return the tokens; null where there are too many. */
  tokens() {
    while (this.at < this.text.length) {
      if (this.found.length > MOST) return null;
      SPECIAL.lastIndex = this.at;
      const match = SPECIAL.exec(this.text);
      this.push(this.text.slice(this.at, match ? match.index : undefined));
      if (!match) break;
      this.at = match.index;
      this.special(match[0]);
    }
    this.emphasize(0);
    if (this.live) this.closeLater();
    return this.found.flatMap((token) => (token.run ? spread(token.run) : [token]));
  }

  push(text) {
    if (text !== "") this.found.push({ text });
  }

  /** Take `length` characters as they are. */
  literal(length) {
    this.push(this.text.slice(this.at, this.at + length));
    this.at += length;
  }

  special(mark) {
    if (mark === "`") this.code();
    else if (mark === "\\") this.escape();
    else if (mark === "$") this.math(this.text.startsWith("$$", this.at) ? "$$" : "$", null);
    else if (mark === "\n") this.newline();
    else if (mark === "[" || this.text.startsWith("![", this.at)) this.bracket(mark === "!" ? 2 : 1);
    else if (mark === "]") this.link();
    else if (mark === "<") this.angle();
    else if (Object.hasOwn(TAGS, mark)) this.run(mark);
    else if (mark.startsWith("http")) this.bare();
    else this.literal(1);
  }

  newline() {
    this.found.push({ lineBreak: true });
    this.at += 1;
  }

  code() {
    const marks = /`+/y;
    marks.lastIndex = this.at;
    const fence = marks.exec(this.text)[0];
    const from = this.at + fence.length;
    const end = this.missing.has(fence) ? -1 : closing(this.text, fence, from);
    if (end < 0) {
      this.missing.add(fence);
      const rest = this.text.slice(from);
      if (!this.live || rest === "" || rest.includes("\n")) return this.literal(fence.length);
      this.found.push({ code: rest });
      this.at = this.text.length;
      return undefined;
    }
    const inside = this.text.slice(from, end).replaceAll("\n", " ");
    const padded = inside.startsWith(" ") && inside.endsWith(" ") && inside.trim() !== "";
    this.found.push({ code: padded ? inside.slice(1, -1) : inside });
    this.at = end + fence.length;
    return undefined;
  }

  escape() {
    const next = this.text[this.at + 1] ?? "";
    if (next === "(" || next === "[") return this.math(`\\${next}`, next === "(" ? "\\)" : "\\]");
    if (next === "\n") {
      this.at += 1; // the line break follows
      return undefined;
    }
    if (!/[!-/:-@[-`{-~]/.test(next)) return this.literal(1);
    this.push(next);
    this.at += 2;
    return undefined;
  }

  /** A formula stays text; its marks are not emphasis. */
  math(opening, other) {
    const end = other ?? opening;
    const from = this.at + opening.length;
    const found = this.missing.has(end) ? -1 : this.text.indexOf(end, from);
    if (found < 0) this.missing.add(end);
    const inside = this.text.slice(from, Math.max(found, from));
    const money = opening === "$" && (/^\s|\s$/.test(inside) || inside.includes("\n") || /\d/.test(this.text[found + 1] ?? ""));
    return found <= from || money ? this.literal(opening.length) : this.literal(found + end.length - this.at);
  }

  angle() {
    BREAK.lastIndex = ANGLE.lastIndex = this.at;
    const lineBreak = BREAK.exec(this.text);
    const match = lineBreak ?? ANGLE.exec(this.text);
    if (!match) return this.literal(1);
    const href = lineBreak ? null : safeHref(match[1]);
    if (lineBreak) this.found.push({ lineBreak: true });
    else if (href === null) return this.literal(1);
    else this.found.push({ open: "a", href }, { text: match[1] }, { close: true });
    this.at += match[0].length;
    return undefined;
  }

  bare() {
    BARE.lastIndex = this.at;
    let address = (BARE.exec(this.text)?.[0] ?? "").replace(/(?:[.,;:!?*_~]|&quot;){1,50}$/, "");
    if (address.endsWith(")") && !address.includes("(")) address = address.replace(/\){1,50}[.,;:!?]{0,50}$/, "");
    const href = safeHref(address);
    if (href === null || this.brackets.length > 0) return this.literal(Math.max(address.length, 4));
    this.found.push({ open: "a", href }, { text: address }, { close: true });
    this.at += address.length;
    return undefined;
  }

  bracket(length) {
    this.brackets.push({ token: this.found.length, runs: this.runs.length });
    this.found.push({ text: this.text.slice(this.at, this.at + length) });
    this.at += length;
  }

  link() {
    const bracket = this.brackets.pop();
    TARGET.lastIndex = this.at + 1;
    const match = bracket && this.text[this.at + 1] === "(" ? TARGET.exec(this.text) : null;
    const href = match && safeHref(match[1]);
    if (!href || bracket.token === this.found.length - 1) return this.literal(1);
    this.found[bracket.token] = { open: "a", href };
    this.emphasize(bracket.runs);
    this.runs.length = bracket.runs;
    this.brackets = []; // a link has no links inside
    this.found.push({ close: true });
    this.at = TARGET.lastIndex;
    return undefined;
  }

  run(mark) {
    let end = this.at;
    while (this.text[end] === mark) end += 1;
    const before = this.text[this.at - 1] ?? " ";
    const after = this.text[end] ?? " ";
    // Korean and Chinese put letters next to marks, so only spaces decide for *; names_with_underscores need more for _.
    const open = !/\s/.test(after) && (mark !== "_" || /\s/.test(before) || PUNCTUATION.test(before));
    const close = !/\s/.test(before) && (mark !== "_" || /\s/.test(after) || PUNCTUATION.test(after));
    const run = { mark, size: end - this.at, left: end - this.at, open, close, opens: [], closes: 0 };
    this.found.push({ run });
    if (mark !== "~" || run.size === 2) this.runs.push(run);
    this.at = end;
  }

  /** Pair the runs from `from` on, the innermost first. */
  emphasize(from) {
    for (let at = from; at < this.runs.length; at += 1) {
      const closer = this.runs[at];
      while (closer.close && closer.left > 0) {
        let before = at - 1;
        while (before >= from && !pairs(this.runs[before], closer)) before -= 1;
        if (before < from) break;
        const opener = this.runs[before];
        const used = Math.min(opener.left, closer.left, 2);
        opener.left -= used;
        closer.left -= used;
        opener.opens.unshift(TAGS[closer.mark][used - 1]);
        closer.closes += 1;
        this.runs.splice(before + 1, at - before - 1);
        at = before + 1;
      }
    }
  }

  closeLater() {
    const run = this.runs.findLast(({ mark, open, left }) => mark === "*" && open && left >= 2);
    if (!run || run.closes > 0) return;
    run.left -= 2;
    run.opens.unshift("strong");
  }
}

function pairs(opener, closer) {
  if (opener.mark !== closer.mark || !opener.open || opener.left === 0) return false;
  const either = opener.close || closer.open;
  return !(either && (opener.size + closer.size) % 3 === 0 && (opener.size % 3 !== 0 || closer.size % 3 !== 0));
}

function spread({ mark, left, opens, closes }) {
  const rest = left > 0 ? [{ text: mark.repeat(left) }] : [];
  return [...Array.from({ length: closes }, () => ({ close: true })), ...rest, ...opens.map((open) => ({ open }))];
}

/** Return where a run of exactly these backticks is; -1 where there is none. */
function closing(text, fence, from) {
  for (let at = text.indexOf(fence, from); at >= 0; at = text.indexOf(fence, at)) {
    let end = at + fence.length;
    while (text[end] === "`") end += 1;
    if (end - at === fence.length) return at;
    at = end;
  }
  return -1;
}
