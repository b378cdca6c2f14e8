// A conversation: a tree of messages. Another answer or another question is a branch beside the first, so nothing is lost.

import { checkedSettings } from "./settings.js";

export const MOST_NODES = 2_000;
const LONGEST_TITLE = 60;
const ROLES = new Set(["user", "assistant", "tool"]);

export class Conversation {
  constructor({ id = crypto.randomUUID?.() ?? randomId(), title = "", created = Date.now(), updated = Date.now(), settings = {}, nodes = [], chosen = {} } = {}) {
    this.id = id;
    this.title = title;
    this.created = created;
    this.updated = updated;
    this.settings = checkedSettings(settings);
    this.nodes = nodes; // parents before children
    this.chosen = new Map(Object.entries(chosen)); // id of a message, "" for the beginning → id of the one that follows
  }

  get empty() {
    return this.nodes.length === 0;
  }

  /** Return the messages that are shown, from the first to the last. */
  path() {
    const byId = new Map(this.nodes.map((node) => [node.id, node]));
    const found = [];
    for (let id = this.chosen.get(""); byId.has(id); id = this.chosen.get(id)) found.push(byId.get(id));
    return found;
  }

  /** Add a message after another one, null for the beginning; it is shown from now on. */
  add(after, message) {
    const node = { id: randomId(), after: after?.id ?? "", ...message };
    this.nodes.push(node);
    this.choose(node);
    if (this.title === "" && node.role === "user") this.title = titleOf(node.content);
    return node;
  }

  /** Return the messages that stand at the same place, this one included. */
  alternatives(node) {
    return this.nodes.filter((other) => other.after === node.after && other.role === node.role);
  }

  choose(node) {
    this.chosen.set(node.after, node.id);
    this.touch();
  }

  touch() {
    this.updated = Date.now();
  }

  toJSON() {
    const { id, title, created, updated, settings, nodes } = this;
    return { id, title, created, updated, settings, nodes, chosen: Object.fromEntries(this.chosen) };
  }

  /** Return the conversation of a value from a file or the browser's storage. Throws an Error that says what is wrong. */
  static from(value) {
    const { id, title, created, updated, settings, nodes, chosen } = object(value, "a conversation");
    if (typeof id !== "string" || !/^[\w-]{8,64}$/.test(id)) throw new Error("a conversation has no id");
    if (!Array.isArray(nodes) || nodes.length > MOST_NODES) throw new Error(`a conversation is no list of at most ${MOST_NODES} messages`);
    const known = new Set([""]);
    const checked = nodes.map((node) => {
      const found = message(node);
      if (!known.has(found.after) || known.has(found.id)) throw new Error("a message does not follow an earlier one");
      known.add(found.id);
      return found;
    });
    const shown = Object.entries(object(chosen ?? {}, "chosen")).filter(([from, to]) => known.has(from) && checked.some((node) => node.id === to && node.after === from));
    return new Conversation({
      id,
      title: text(title).slice(0, 2 * LONGEST_TITLE),
      created: time(created),
      updated: time(updated),
      settings,
      nodes: checked,
      chosen: Object.fromEntries(shown),
    });
  }
}

/** Return a message with the fields that it may have. */
function message(value) {
  const { id, after, role, content, reasoning_content: thought, tool_calls: calls, tool_call_id: answered, facts } = object(value, "a message");
  if (typeof id !== "string" || !/^[\w-]{1,64}$/.test(id) || typeof after !== "string" || !ROLES.has(role)) throw new Error("a message has no id, place or role");
  const found = { id, after, role, content: text(content) };
  if (thought) found.reasoning_content = text(thought);
  if (Array.isArray(calls) && calls.length > 0) found.tool_calls = calls.slice(0, 128).map(toolCall);
  if (answered) found.tool_call_id = text(answered);
  if (role === "assistant") found.facts = checkedFacts(facts ?? {});
  return found;
}

function toolCall(value) {
  const { id, function: called } = object(value, "a tool call");
  const { name, arguments: given } = object(called, "a tool call");
  return { id: text(id), type: "function", function: { name: text(name), arguments: text(given) } };
}

/** The times and counts of an answer: numbers and short texts alone; what was running is interrupted. */
function checkedFacts(value) {
  const { running, ...others } = object(value, "facts");
  const kept = Object.entries(others).filter(([, fact]) => typeof fact === "boolean" || Number.isFinite(fact) || (typeof fact === "string" && fact.length < 2_000));
  return Object.fromEntries(kept.slice(0, 32));
}

function object(value, what) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${what} is not an object`);
  return value;
}

function text(value) {
  return typeof value === "string" ? value : "";
}

function time(value) {
  return Number.isFinite(value) ? Math.min(Math.max(value, 0), Date.now()) : Date.now();
}

function titleOf(content) {
  const line = content.trim().split("\n")[0].replace(/\s+/g, " ");
  return line.length <= LONGEST_TITLE ? line : `${line.slice(0, LONGEST_TITLE - 1).trimEnd()}…`;
}

/** crypto.randomUUID needs a secure origin; this does not. */
function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
