// One answer of the model: the request, and the chunks of its stream put together.

import { stream } from "../api.js";
import { parameters } from "../data/settings.js";

/** Return the body of the request that continues the messages of a path. Throws an Error for wrong settings. */
export function requestBody(model, settings, path) {
  const messages = path.filter(({ role, content, tool_calls: calls }) => role !== "assistant" || content !== "" || calls).map(sent);
  if (settings.system.trim() !== "") messages.unshift({ role: "system", content: settings.system });
  return { model: model.id, messages, stream_options: { include_usage: true }, ...parameters(settings, model) };
}

/** A message without what only this page knows of it. */
function sent({ id, after, facts, ...message }) {
  return message;
}

/**
 * Fill a message with the model's answer; call `onchange()` after every chunk.
 *
 * `node.facts` gets times in ms since the request (`first`: the first token; `thought`: how long it thought; `total`),
 * token counts (`prompt`, `cached`, `completion`), the reason why it ended (`finish`), `stopped` and `error`.
 */
export async function generate(node, body, signal, onchange) {
  const start = performance.now();
  const since = () => performance.now() - start;
  const facts = node.facts;
  facts.running = true;
  let thinkingSince = null;
  try {
    for await (const { choices, usage } of stream("v1/chat/completions", body, signal)) {
      const choice = choices?.[0];
      if (choice && hasText(choice.delta)) {
        facts.first ??= since();
        facts.last = since();
        if (choice.delta.reasoning_content) thinkingSince ??= since();
        else if (thinkingSince !== null) facts.thought ??= since() - thinkingSince;
        append(node, choice.delta);
      }
      if (choice?.finish_reason) facts.finish = choice.finish_reason;
      if (usage) count(facts, usage);
      onchange();
    }
  } catch (error) {
    if (error.name === "AbortError") facts.stopped = true;
    else Object.assign(facts, { error: error.message || String(error) });
  } finally {
    facts.total = since();
    if (thinkingSince !== null) facts.thought ??= facts.total - thinkingSince;
    // A call that is cut off cannot be answered.
    if (facts.finish !== "tool_calls" && (facts.stopped || facts.error)) delete node.tool_calls;
    delete facts.running;
  }
}

function hasText(delta) {
  return Boolean(delta && (delta.content || delta.reasoning_content || delta.tool_calls?.length));
}

function append(node, delta) {
  if (delta.content) node.content += delta.content;
  if (delta.reasoning_content) node.reasoning_content = (node.reasoning_content ?? "") + delta.reasoning_content;
  for (const part of delta.tool_calls ?? []) {
    node.tool_calls ??= [];
    const call = (node.tool_calls[part.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
    if (part.id) call.id = part.id;
    call.function.name += part.function?.name ?? "";
    call.function.arguments += part.function?.arguments ?? "";
  }
}

function count(facts, usage) {
  facts.prompt = usage.prompt_tokens;
  facts.completion = usage.completion_tokens;
  facts.cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
}
