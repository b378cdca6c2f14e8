// The conversations of this browser, in localStorage: a bounded number, the oldest give way.

import { kept, keysOf } from "../lib/storage.js";
import { Conversation } from "./conversation.js";

const PREFIX = "intaglio.conversation.";
const LAST_SETTINGS = "intaglio.settings";
export const MOST = 100;

export class Store {
  constructor() {
    this.conversations = new Map();
    for (const key of keysOf(kept)) {
      if (key.startsWith(PREFIX)) this.read(key);
    }
    // Another tab has written.
    addEventListener("storage", ({ key }) => {
      if (key?.startsWith(PREFIX)) {
        this.read(key);
        this.onchange?.(key.slice(PREFIX.length));
      }
    });
  }

  read(key) {
    const id = key.slice(PREFIX.length);
    try {
      const conversation = Conversation.from(JSON.parse(kept.getItem(key)));
      if (conversation.id !== id) throw new Error("a conversation under another name");
      this.conversations.set(id, conversation);
    } catch {
      this.conversations.delete(id);
    }
  }

  /** Return the conversations, the newest first. */
  list() {
    return [...this.conversations.values()].sort((a, b) => b.updated - a.updated);
  }

  get(id) {
    return this.conversations.get(id);
  }

  /** Keep a conversation; return false where the browser has no room for it even without all others. */
  save(conversation) {
    this.conversations.set(conversation.id, conversation);
    const others = this.list().filter(({ id }) => id !== conversation.id);
    while (others.length >= MOST) this.delete(others.pop().id);
    for (;;) {
      try {
        kept.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
        return true;
      } catch {
        if (others.length === 0) return false;
        this.delete(others.pop().id);
      }
    }
  }

  delete(id) {
    this.conversations.delete(id);
    kept.removeItem(PREFIX + id);
  }

  /** The settings of the next new conversation: those that were changed last. */
  get settings() {
    try {
      return JSON.parse(kept.getItem(LAST_SETTINGS)) ?? {};
    } catch {
      return {};
    }
  }

  set settings(value) {
    try {
      kept.setItem(LAST_SETTINGS, JSON.stringify(value));
    } catch {
      // without room, new conversations begin with the defaults
    }
  }
}
