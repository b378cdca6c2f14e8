// The field for a message.

import { byId } from "../lib/dom.js";

export class Composer {
  /** `onsend(text)` returns whether the text was sent; `onstop()`, and `oneditlast()` for the arrow up in an empty field. */
  constructor({ onsend, onstop, oneditlast }) {
    this.form = byId("composer");
    this.field = byId("message");
    this.button = byId("send");
    this.busy = false;
    this.ready = false; // a model is there
    this.onsend = onsend;
    const touch = matchMedia("(pointer: coarse)");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.busy) onstop();
      else this.send();
    });
    this.field.addEventListener("input", () => this.update());
    this.field.addEventListener("keydown", (event) => {
      // An Enter that ends the composition of a Korean or Japanese syllable sends nothing.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !touch.matches) {
        event.preventDefault();
        if (!this.busy) this.send();
      } else if (event.key === "ArrowUp" && this.field.value === "" && !this.busy) {
        event.preventDefault();
        oneditlast();
      }
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.defaultPrevented && this.busy) onstop();
    });
  }

  send() {
    const text = this.field.value;
    if (!this.ready || text.trim() === "" || !this.onsend(text)) return;
    this.field.value = "";
    this.update();
  }

  setBusy(busy) {
    this.busy = busy;
    this.update();
  }

  setReady(ready) {
    this.ready = ready;
    this.update();
  }

  update() {
    this.button.disabled = !this.busy && (!this.ready || this.field.value.trim() === "");
    this.button.classList.toggle("is-stop", this.busy);
    const label = this.busy ? "Stop (Esc)" : "Send (Enter)";
    this.button.setAttribute("aria-label", this.busy ? "Stop" : "Send");
    this.button.title = label;
  }

  focus() {
    this.field.focus({ preventScroll: true });
  }
}
