// The dialog that asks for an API key where the server wants one.

import { key, onUnauthorized } from "../api.js";
import { byId } from "../lib/dom.js";

export function keyDialog() {
  const dialog = byId("key-dialog");
  const field = byId("key");
  const problem = byId("key-problem");
  let answered = null; // the question that is open

  const ask = (message, wrong) => {
    problem.hidden = !wrong;
    problem.textContent = `The server refuses this key: ${message}`;
    field.value = "";
    answered ??= Promise.withResolvers ? Promise.withResolvers() : deferred();
    if (!dialog.open) dialog.showModal();
    field.focus();
    return answered.promise;
  };
  const settle = (value) => {
    const question = answered;
    answered = null;
    if (dialog.open) dialog.close();
    question?.resolve(value);
  };
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (field.value.trim() === "") return;
    key.set(field.value.trim());
    settle(true);
  });
  byId("key-cancel").addEventListener("click", () => settle(false));
  dialog.addEventListener("close", () => settle(false));
  onUnauthorized(ask);
}

function deferred() {
  let resolve;
  const promise = new Promise((done) => { resolve = done; });
  return { promise, resolve };
}
