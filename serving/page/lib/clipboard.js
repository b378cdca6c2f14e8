// Copying text, also where the page is not from a secure origin and has no navigator.clipboard.

import { el, icon } from "./dom.js";

const SHOWN_MS = 1600;

/** Copy text; return whether that worked. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "offscreen", "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** Return a button that copies what `text()` returns. */
export function copyButton(text, label = "Copy") {
  const caption = el("span", { class: "caption" }, label);
  const button = el("button", { type: "button", class: "copy quiet", "aria-label": label }, icon("copy"), caption);
  button.addEventListener("click", async () => {
    const focused = document.activeElement;
    const done = await copy(text());
    focused?.focus({ preventScroll: true });
    caption.textContent = done ? "Copied" : "Select and copy by hand";
    setTimeout(() => { caption.textContent = label; }, SHOWN_MS);
  });
  return button;
}
