// The panel of settings. Fields that are wrong say so, and keep what was right before.

import { key } from "../api.js";
import { DEFAULTS, NUMBERS, checkedSettings, parseSchema, parseTools } from "../data/settings.js";
import { byId } from "../lib/dom.js";
import { toast } from "./toast.js";

const EXAMPLE_TOOLS = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "Return the weather of a city now",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
];
const EXAMPLE_SCHEMA = {
  type: "object",
  properties: { title: { type: "string" }, tags: { type: "array", items: { type: "string" } } },
  required: ["title", "tags"],
};
const CHECKED = { tools: parseTools, schema: parseSchema };

export class SettingsPanel {
  /** `onchange(settings)`: they have changed. */
  constructor(onchange) {
    this.onchange = onchange;
    this.settings = null;
    this.form = byId("settings-form");
    this.forget = byId("forget-key");
    this.think = byId("think"); // the same switch beside the message field
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", (event) => this.read(event.target));
    byId("example-tools").addEventListener("click", () => this.write("tools", JSON.stringify(EXAMPLE_TOOLS, null, 2)));
    byId("example-schema").addEventListener("click", () => this.write("schema", JSON.stringify(EXAMPLE_SCHEMA, null, 2)));
    byId("reset-settings").addEventListener("click", () => {
      this.show(checkedSettings({}), this.model);
      this.onchange(this.settings);
    });
    this.think.addEventListener("click", () => this.form.elements.thinking.click());
    for (const button of this.form.querySelectorAll("[data-reset]")) {
      button.addEventListener("click", () => this.write(button.dataset.reset, ""));
    }
    this.forget.addEventListener("click", () => {
      key.set("");
      this.forget.hidden = true;
      toast("The API key is forgotten.");
    });
  }

  /** Show the settings of a conversation; only what the model can do. */
  show(settings, model) {
    this.forget.hidden = key.get() === "";
    if (settings === this.settings && model === this.model) return; // a text that is being typed stays
    this.settings = settings;
    this.model = model;
    for (const name of Object.keys(DEFAULTS)) this.fill(name);
    for (const name of Object.keys(CHECKED)) this.check(name);
    byId("thinking-row").hidden = this.think.hidden = !model?.thinking;
    byId("tools-group").hidden = model?.tools === false;
  }

  fill(name) {
    const field = this.form.elements[name];
    const value = this.settings[name];
    if (name === "thinking") this.think.setAttribute("aria-pressed", String(value));
    if (field.type === "checkbox") field.checked = value;
    else field.value = value ?? "";
    this.fillRange(name);
  }

  fillRange(name) {
    const range = byId(`${name}-range`);
    if (range) {
      range.value = this.settings[name] ?? range.dataset.normal;
      range.classList.toggle("is-unset", this.settings[name] === null);
    }
    const reset = this.form.querySelector(`[data-reset="${name}"]`);
    if (reset) reset.hidden = this.settings[name] === null;
  }

  write(name, value) {
    this.form.elements[name].value = value;
    this.read(this.form.elements[name]);
    this.form.elements[name].focus();
  }

  read(field) {
    const name = field.dataset.of ?? field.name;
    if (!(name in DEFAULTS)) return;
    const value = field.type === "checkbox" ? field.checked : name in NUMBERS ? number(field.value) : field.value;
    if (name in CHECKED && !this.check(name)) return;
    this.settings = checkedSettings({ ...this.settings, [name]: value });
    if (field.dataset.of) this.form.elements[name].value = this.settings[name] ?? "";
    else if (name === "thinking") this.fill(name);
    this.fillRange(name);
    this.onchange(this.settings);
  }

  /** Tell whether a field has what it must have; show what is wrong. */
  check(name) {
    const problem = byId(`${name}-problem`);
    const field = this.form.elements[name];
    let message = "";
    try {
      CHECKED[name](field.value);
    } catch (error) {
      message = `${error.message}. The last correct text is used.`;
    }
    problem.textContent = message;
    problem.hidden = message === "";
    field.setAttribute("aria-invalid", String(message !== ""));
    return message === "";
  }
}

function number(text) {
  return text.trim() === "" ? null : Number(text);
}
