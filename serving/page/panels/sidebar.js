// The list of conversations.

import { byId, el, iconButton } from "../lib/dom.js";
import { visible } from "../lib/visible.js";

const DAY = 86_400_000;

export class Sidebar {
  /** `actions`: open(id), remove(conversation). */
  constructor(actions) {
    this.actions = actions;
    this.list = byId("conversations");
  }

  show(conversations, current) {
    const groups = new Map();
    for (const conversation of conversations) {
      if (conversation.empty) continue;
      const group = age(conversation.updated);
      groups.set(group, [...(groups.get(group) ?? []), this.entry(conversation, conversation.id === current.id)]);
    }
    const found = [...groups].map(([name, entries]) => el("section", {}, el("h3", {}, name), el("ul", {}, ...entries)));
    this.list.replaceChildren(...(found.length > 0 ? found : [el("p", { class: "hint" }, "Conversations are kept in this browser alone.")]));
  }

  entry(conversation, current) {
    const title = visible(conversation.title) || "Untitled";
    const open = el("button", { type: "button", class: "entry", dir: "auto", title, "aria-current": current ? "true" : null, onclick: () => this.actions.open(conversation.id) }, title);
    return el("li", {}, open, iconButton("delete", `Delete “${title}”`, () => this.actions.remove(conversation)));
  }
}

function age(time) {
  const midnight = new Date().setHours(0, 0, 0, 0);
  if (time >= midnight) return "Today";
  if (time >= midnight - DAY) return "Yesterday";
  return time >= midnight - 7 * DAY ? "The last seven days" : "Earlier";
}
