// Elements made of properties and children. A string child becomes a text node, so it is never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element: `el("button", { class: "quiet", type: "button", onclick }, "Copy")`. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Return an icon of the sprite in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

/** Return a button with an icon and a label, which is shown as a tooltip. */
export function iconButton(name, label, onclick, properties = {}) {
  return el("button", { type: "button", class: "icon-button", title: label, "aria-label": label, onclick, ...properties }, icon(name));
}

/** Return the element of an id. */
export function byId(id) {
  return document.getElementById(id);
}

/** Return a number that no other call of this page has returned. */
let last = 0;
export function unique(prefix) {
  last += 1;
  return `${prefix}-${last}`;
}
