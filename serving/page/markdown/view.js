// A Markdown text that grows: blocks that are complete stay as they are, and the last one is rendered again.

import { visible } from "../lib/visible.js";
import { parseBlocks } from "./blocks.js";
import { plainBlock, renderBlock } from "./render.js";

const MOST_ELEMENTS = 20_000; // of one text; blocks beyond that are shown as they are written

export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.reset();
  }

  reset() {
    this.root.replaceChildren();
    this.done = 0; // characters whose blocks are complete
    this.elements = 0;
    this.last = null; // {block, element} of the block that may grow
    this.text = "";
  }

  /** Show a text that begins as the text before; any other is rendered anew. With `live` it may still grow. */
  update(text, live) {
    if (!text.startsWith(this.text)) this.reset();
    this.text = text;
    const blocks = parseBlocks(text.slice(this.done));
    // A block is complete once the first line of the next one is.
    const growing = blocks.at(-1);
    const open = live && growing && growing.end === text.length - this.done ? 2 : 1;
    const complete = blocks.slice(0, live ? -open : undefined);
    const offset = this.done;
    if (complete.length > 0 || blocks.length !== (this.last?.count ?? 0)) this.replace(blocks, complete, offset, live);
    else this.grow(blocks, live);
  }

  replace(blocks, complete, offset, live) {
    const before = this.last?.shown ?? [];
    for (const { element } of before) element.remove();
    for (const [index, block] of complete.entries()) this.complete(block, before[index]);
    const rest = blocks.slice(complete.length);
    const shown = rest.map((block, index) => ({ block, element: this.reuse(block, live, before[complete.length + index]) }));
    this.root.append(...shown.map(({ element }) => element));
    this.last = { shown, count: rest.length };
    if (rest.length > 0) this.done = offset + rest[0].start;
    else this.done = this.text.length;
  }

  /** Add a block for good. */
  complete(block, shown) {
    const before = this.root.lastElementChild;
    if (this.elements > MOST_ELEMENTS && before?.matches("pre.plain")) {
      before.append(`\n\n${visible(block.source.join("\n"))}`);
      return;
    }
    const element = this.reuse(block, false, shown);
    this.elements += 1 + element.getElementsByTagName("*").length;
    this.root.append(element);
  }

  grow(blocks, live) {
    for (const [index, block] of blocks.entries()) {
      const shown = this.last.shown[index];
      const element = this.reuse(block, live, shown);
      if (element !== shown.element) shown.element.replaceWith(element);
      Object.assign(shown, { block, element });
    }
    if (blocks.length > 0) this.done += blocks[0].start;
  }

  /** Return the element of a block; what is shown already keeps its element, and with it what is selected in it. */
  reuse(block, live, shown) {
    const stays = shown && ((live && same(shown.block, block)) || extendCode(shown, block));
    return stays ? shown.element : this.render(block, live);
  }

  render(block, live) {
    return this.elements > MOST_ELEMENTS ? plainBlock(block) : renderBlock(block, live);
  }
}

function same(before, block) {
  return before.type === block.type && before.source.length === block.source.length && before.source.every((line, at) => line === block.source[at]);
}

/** Add what is new to the text of a code block; return whether that is all that has changed. */
function extendCode({ block: before, element }, block) {
  if (block.type !== "code" || before.type !== "code" || before.language !== block.language) return false;
  if (!element.classList.contains("code-block") || !block.text.startsWith(before.text)) return false;
  const content = element.querySelector("pre > code");
  if (block.text.length > before.text.length) content.append(visible(block.text.slice(before.text.length)));
  content.normalize();
  return true;
}
