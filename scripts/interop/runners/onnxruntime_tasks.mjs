// ONNX Runtime alone, in Node and as WebAssembly: the contract of the graph, and the tokenizer of transformers.js.
// `ort` is the module, `folder` gives the artifact's files: json(name), and session(name of the graph).

import { Tokenizer } from "@huggingface/tokenizers";

const LONGEST_ANSWER = 15;
const HALF = globalThis.Float16Array ?? Uint16Array;

export async function run(ort, folder, task, texts, batch, newTokens) {
  const artifact = await open(ort, folder);
  const each = async (one) => {
    const outputs = [];
    for (const text of texts) outputs.push(await one(text));
    return outputs;
  };
  if (task === "text-generation") {
    return {
      outputs: await each(async (text) => (await generate(artifact, [text], newTokens))[0]),
      batch: batch && (await generate(artifact, batch, newTokens)),
    };
  }
  if (task === "text-classification") {
    return {
      outputs: await each(async (text) => (await classify(artifact, [text]))[0]),
      batch: batch && (await classify(artifact, batch)),
    };
  }
  const one = { "token-classification": tag, "question-answering": answer, "feature-extraction": embed }[task];
  return { outputs: await each((text) => one(artifact, text)), batch: null };
}

async function open(ort, folder) {
  const manifest = await folder.json("intaglio.json");
  const graph = Object.keys(manifest.files).find((name) => name.endsWith(".onnx"));
  const tokenizer = new Tokenizer(await folder.json("tokenizer.json"), await folder.json("tokenizer_config.json"));
  const settings = await folder.json("generation_config.json").catch(() => ({}));
  const session = await folder.session(graph);
  return { ort, session, tokenizer, model: manifest.model, ends: [settings.eos_token_id].flat() };
}

const encode = ({ tokenizer }, text) => tokenizer.encode(text).ids;

// Greedy text for several prompts at once; a mask row keeps the gap of its prompt's padding, which is on the right.
async function generate(artifact, texts, newTokens) {
  const { ort, session, model, ends } = artifact;
  const prompts = texts.map((text) => encode(artifact, text));
  const rows = prompts.length;
  let width = Math.max(...prompts.map((prompt) => prompt.length));
  let masks = prompts.map((prompt) => Array.from({ length: width }, (_, place) => +(place < prompt.length)));
  let feeds = { input_ids: integers(ort, padded(prompts, width, 0)), attention_mask: integers(ort, masks) };
  const Values = model.cache_dtype === "float16" ? HALF : Float32Array;
  const shape = [rows, model.num_key_value_heads, 0, model.head_dim];
  for (const name of session.inputNames.filter((name) => name.startsWith("past_key_values."))) {
    feeds[name] = new ort.Tensor(model.cache_dtype, new Values(0), shape);
  }
  let last = prompts.map((prompt) => prompt.length - 1);
  const found = texts.map(() => []);
  for (let step = 0; step < newTokens; step++) {
    const outputs = await session.run(feeds);
    const logits = floats(outputs.logits);
    const [, length, size] = outputs.logits.dims;
    const chosen = last.map((place, row) => largest(logits, (row * length + place) * size, size));
    chosen.forEach((token, row) => found[row].push(token));
    if (found.every((tokens) => tokens.some((token) => ends.includes(token)))) break;
    masks = masks.map((row) => [...row, 1]);
    feeds = { input_ids: integers(ort, chosen.map((token) => [token])), attention_mask: integers(ort, masks) };
    for (const [name, value] of Object.entries(outputs)) {
      if (name.startsWith("present.")) feeds[name.replace("present", "past_key_values")] = value;
    }
    last = last.map(() => 0);
  }
  return found;
}

async function classify(artifact, texts) {
  const { logits } = await forward(artifact, texts.map((text) => encode(artifact, text)));
  const size = logits.dims[1];
  const values = floats(logits);
  return texts.map((_, row) => {
    const scores = softmax(values.slice(row * size, (row + 1) * size));
    const label = largest(scores, 0, size);
    return { label: artifact.model.labels[label], score: scores[label] };
  });
}

async function tag(artifact, text) {
  const { logits } = await forward(artifact, [encode(artifact, text)]);
  const [, length, size] = logits.dims;
  const values = floats(logits);
  return Array.from({ length }, (_, place) => largest(values, place * size, size));
}

// The most likely span of the context; the scores are those of the context's tokens.
async function answer(artifact, [question, context]) {
  const before = encode(artifact, question).length;
  const tokens = artifact.tokenizer.encode(question, { text_pair: context }).ids;
  const { start_logits, end_logits } = await forward(artifact, [tokens]);
  const starts = softmax(floats(start_logits).slice(before));
  const ends = softmax(floats(end_logits).slice(before));
  let best = { score: -1 };
  for (let first = 0; first < starts.length; first++) {
    for (let last = first; last < Math.min(first + LONGEST_ANSWER, ends.length); last++) {
      const score = starts[first] * ends[last];
      if (score > best.score) best = { first, last, score };
    }
  }
  const found = tokens.slice(before + best.first, before + best.last + 1);
  return { answer: artifact.tokenizer.decode(found).trim(), score: best.score };
}

async function embed(artifact, text) {
  const { last_hidden_state } = await forward(artifact, [encode(artifact, text)]);
  const size = last_hidden_state.dims[2];
  return { shape: last_hidden_state.dims, values: floats(last_hidden_state).slice(-size).slice(0, 16) };
}

function forward({ ort, session, model }, prompts) {
  const width = Math.max(...prompts.map((prompt) => prompt.length));
  const masks = prompts.map((prompt) => prompt.map(() => 1));
  return session.run({
    input_ids: integers(ort, padded(prompts, width, model.pad_token_id ?? 0)),
    attention_mask: integers(ort, padded(masks, width, 0)),
  });
}

const padded = (rows, width, value) => rows.map((row) => [...row, ...Array(width - row.length).fill(value)]);

function integers(ort, rows) {
  return new ort.Tensor("int64", BigInt64Array.from(rows.flat().map(BigInt)), [rows.length, rows[0].length]);
}

function floats({ type, data }) {
  if (type === "float16" && data instanceof Uint16Array) return Array.from(data, half);
  return Array.from(data);
}

// The number that 16 bits stand for, where the runtime gives those.
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * 2 ** -24 * fraction;
  return exponent === 31 ? (fraction ? NaN : sign * Infinity) : sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
}

function largest(values, start, size) {
  let best = 0;
  for (let place = 1; place < size; place++) if (values[start + place] > values[start + best]) best = place;
  return best;
}

function softmax(values) {
  const top = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - top));
  const sum = powers.reduce((one, other) => one + other, 0);
  return powers.map((power) => power / sum);
}
