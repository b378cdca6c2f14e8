// What is known of an answer, in words: speed, times, counts, and why it ended.

import { count, counted, duration, short } from "../lib/numbers.js";

/** Return the figures of an answer, each as [text, explanation]. */
export function figures({ completion, first, last, prompt, cached }) {
  const found = [];
  if (completion > 1 && last > first) {
    found.push([`${short(((completion - 1) / (last - first)) * 1000)} tokens/s`, "Tokens a second after the first token"]);
  }
  if (completion !== undefined) found.push([counted(completion, "token"), "Tokens of the answer, thought and tool calls included"]);
  if (first !== undefined) found.push([`first after ${duration(first)}`, "Time from the request to the first token"]);
  if (prompt !== undefined) {
    found.push([
      cached > 0 ? `prompt ${count(prompt)}, ${count(cached)} cached` : `prompt ${count(prompt)}`,
      "Tokens of the whole conversation before the answer; cached ones were not read again",
    ]);
  }
  return found;
}

const ENDS = {
  length: "The answer was cut off: it reached the most tokens that were allowed.",
  content_filter: "The answer was filtered.",
};

/** Return why an answer did not end by itself; null where it did. */
export function note({ stopped, error, finish, running, total }) {
  if (error) return { kind: "error", text: error };
  if (stopped) return { kind: "stopped", text: "You stopped this answer." };
  if (!running && total === undefined) return { kind: "stopped", text: "This answer was interrupted." };
  return finish in ENDS ? { kind: "stopped", text: ENDS[finish] } : null;
}
