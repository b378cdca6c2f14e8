// The button that changes between light and dark.

import { byId } from "../lib/dom.js";
import { kept } from "../lib/storage.js";

export function themeButton() {
  const root = document.documentElement;
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const name = () => {
    const label = isDark() ? "Use light colors" : "Use dark colors";
    button.setAttribute("aria-label", label);
    button.title = label;
    button.classList.toggle("is-dark", isDark());
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    kept.setItem("intaglio.theme", root.dataset.theme);
    name();
  });
  system.addEventListener("change", name);
  name();
}
