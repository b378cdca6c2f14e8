// The messages of a conversation. It follows an answer that grows, unless the reader has scrolled up.

import { byId } from "../lib/dom.js";
import { ModelTurn, UserTurn } from "./turn.js";

const NEAR = 48; // pixels from the end that still count as the end
const PATIENCE = 4; // showing takes at most a fifth of the time

export class Pane {
  constructor(actions) {
    this.actions = actions;
    this.scroller = byId("scroller");
    this.list = byId("turns");
    this.latest = byId("latest");
    this.turns = new Map(); // id of a message → its turn
    this.follows = true;
    this.scheduled = false;
    this.cost = 0;
    this.scroller.addEventListener("scroll", () => {
      this.follows = this.distance() < NEAR;
      this.latest.hidden = this.follows;
    }, { passive: true });
    this.latest.addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.follow()).observe(this.list);
  }

  distance() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight;
  }

  /** Show a conversation. */
  show(conversation, busy) {
    this.conversation = conversation;
    this.busy = busy;
    const path = conversation.path();
    const shown = [];
    for (const [at, node] of path.entries()) {
      if (node.role === "tool") continue;
      const turn = this.turns.get(node.id) ?? this.make(node);
      turn.update(this.context(path, at));
      shown.push(turn);
    }
    this.turns = new Map(shown.map((turn) => [turn.node.id, turn]));
    const elements = shown.map(({ element }) => element);
    if (elements.length !== this.list.children.length || elements.some((element, at) => element !== this.list.children[at])) {
      this.list.replaceChildren(...elements);
    }
  }

  make(node) {
    return node.role === "user" ? new UserTurn(node, this.actions) : new ModelTurn(node, this.actions);
  }

  context(path, at) {
    const node = path[at];
    const results = [];
    for (let next = at + 1; path[next]?.role === "tool"; next += 1) results.push(path[next].content);
    return { alternatives: this.conversation.alternatives(node), busy: this.busy, results, last: at === path.length - 1 };
  }

  /** Show what has changed in the last message, at most once a picture. */
  grow() {
    if (this.scheduled) return;
    this.scheduled = true;
    const update = () => {
      this.scheduled = false;
      const start = performance.now();
      const path = this.conversation.path();
      this.turns.get(path.at(-1)?.id)?.update(this.context(path, path.length - 1));
      this.follow();
      this.cost = performance.now() - start;
    };
    // Frames do not come to a hidden tab; costly pictures come less often.
    if (document.hidden || this.cost > 16) setTimeout(update, Math.max(16, PATIENCE * this.cost));
    else requestAnimationFrame(update);
  }

  follow() {
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  toEnd() {
    this.follows = true;
    this.latest.hidden = true;
    this.follow();
  }
}
