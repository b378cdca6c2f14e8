// Short messages at the edge of the page, with at most one thing to do about them.

import { byId, el } from "../lib/dom.js";

const SHOWN_MS = 8_000;

/** Show a message; `undo` is {label, run}. */
export function toast(text, undo = null) {
  const message = el("div", { class: "toast" }, el("span", {}, text));
  const remove = () => message.remove();
  if (undo) {
    const button = el("button", { type: "button", class: "link" }, undo.label);
    button.addEventListener("click", () => {
      remove();
      undo.run();
    });
    message.append(button);
  }
  byId("toasts").append(message);
  setTimeout(remove, SHOWN_MS);
}

/** Tell a screen reader what has happened. */
export function announce(text) {
  byId("status").textContent = text;
}
