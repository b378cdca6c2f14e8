// The settings of a conversation, and the parameters of a request that they become.

/** name → the smallest and the largest value, and the step; an empty setting leaves the choice to the model. */
export const NUMBERS = {
  temperature: { least: 0, most: 2, step: 0.05 },
  top_p: { least: 0.05, most: 1, step: 0.05 },
  max_completion_tokens: { least: 1, most: 1_000_000, step: 1 },
  seed: { least: 0, most: 2 ** 32 - 1, step: 1 },
};
export const TOOL_CHOICES = ["auto", "none", "required"];
const LONGEST = 200_000; // characters of a text

export const DEFAULTS = {
  system: "",
  thinking: false,
  temperature: null,
  top_p: null,
  max_completion_tokens: null,
  seed: null,
  stop: "", // one string a line
  tools: "", // JSON
  tool_choice: "auto",
  schema: "", // JSON
};

/** Return settings of which every field has a value of its type. */
export function checkedSettings(value) {
  const found = { ...DEFAULTS };
  for (const [name, normal] of Object.entries(DEFAULTS)) {
    const given = value?.[name];
    if (name in NUMBERS) found[name] = Number.isFinite(given) ? clamp(given, NUMBERS[name]) : null;
    else if (name === "tool_choice") found[name] = TOOL_CHOICES.includes(given) ? given : normal;
    else if (typeof given === typeof normal) found[name] = typeof given === "string" ? given.slice(0, LONGEST) : given;
  }
  return found;
}

/** Return tools of their JSON, either whole tools or their functions; an empty text has none. Throws an Error. */
export function parseTools(json) {
  const values = parseJSON(json, []);
  const tools = (Array.isArray(values) ? values : [values]).map((tool) => (tool?.function ? tool : { type: "function", function: tool }));
  for (const tool of tools) {
    if (typeof tool.function?.name !== "string") throw new Error("every tool needs a name");
  }
  return tools;
}

/** Return a JSON schema of its text; null for an empty one. Throws an Error. */
export function parseSchema(json) {
  const value = parseJSON(json, null);
  if (value !== null && (typeof value !== "object" || Array.isArray(value))) throw new Error("a schema is a JSON object");
  return value;
}

/** Return the parameters of a request. Throws an Error where the tools or the schema are not JSON. */
export function parameters(settings, model) {
  const body = {};
  for (const name of Object.keys(NUMBERS)) {
    if (settings[name] !== null) body[name] = settings[name];
  }
  const stop = settings.stop.split("\n").filter((line) => line !== "").map((line) => line.replaceAll("\\n", "\n"));
  if (stop.length > 0) body.stop = stop;
  const tools = parseTools(settings.tools);
  if (tools.length > 0) Object.assign(body, { tools, tool_choice: settings.tool_choice });
  const schema = parseSchema(settings.schema);
  if (schema !== null) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  if (model.thinking) body.chat_template_kwargs = { enable_thinking: settings.thinking };
  return body;
}

function parseJSON(json, empty) {
  return json.trim() === "" ? empty : JSON.parse(json);
}

function clamp(value, { least, most, step }) {
  const bounded = Math.min(Math.max(value, least), most);
  return step === 1 ? Math.round(bounded) : bounded;
}
