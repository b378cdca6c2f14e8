// Conversations as a file.

import { el } from "../lib/dom.js";
import { Conversation } from "./conversation.js";
import { MOST } from "./store.js";

const FORMAT = "intaglio conversations";
const LARGEST = 16 << 20; // bytes

/** Let the browser save conversations as a file. */
export function exportFile(conversations) {
  const json = JSON.stringify({ format: FORMAT, version: 1, conversations }, null, 1);
  const url = URL.createObjectURL(new Blob([json], { type: "application/json" }));
  const day = new Date().toISOString().slice(0, 10);
  el("a", { href: url, download: `conversations-${day}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Return the conversations of a file. Throws an Error that says what is wrong with it. */
export async function importFile(file) {
  if (file.size > LARGEST) throw new Error(`${file.name} is larger than ${LARGEST >> 20} MB`);
  let value;
  try {
    value = JSON.parse(await file.text());
  } catch {
    throw new Error(`${file.name} is not JSON`);
  }
  if (value?.format !== FORMAT || !Array.isArray(value.conversations)) throw new Error(`${file.name} has no conversations of this page`);
  if (value.conversations.length > MOST) throw new Error(`${file.name} has more than ${MOST} conversations`);
  return value.conversations.map((one) => Conversation.from(one));
}
