// The tasks of transformers.js, the same in Node and in a browser: `library` is the module, `id` the artifact's name.

const LONGEST_ANSWER = 15;

// Classes that transformers.js has: it chooses one by the configuration's model type, and knows no exaone4 and no heads
// of Qwen2. The graph is what runs, so a class with the same inputs and outputs serves.
const KNOWN = {
  "text-generation": "qwen2",
  "text-classification": "bert",
  "token-classification": "bert",
  "question-answering": "bert",
};

export async function run(library, id, task, texts, batch, newTokens, options = {}) {
  const { AutoConfig, AutoModelForQuestionAnswering, AutoTokenizer, TextStreamer, pipeline } = library;
  const config = await AutoConfig.from_pretrained(id);
  config.model_type = KNOWN[task] ?? config.model_type;
  if (task === "question-answering") {
    // The pipeline looks for a separator between question and context; these tokenizers have none.
    const tokenizer = await AutoTokenizer.from_pretrained(id);
    const model = await AutoModelForQuestionAnswering.from_pretrained(id, { config, ...options });
    const outputs = [];
    for (const [question, context] of texts) outputs.push(await answer(tokenizer, model, question, context));
    return { outputs, batch: null };
  }
  const pipe = await pipeline(task, id, { config, ...options });
  const outputs = [];
  for (const text of texts) {
    if (task === "text-generation") {
      const tokens = [];
      const take = (found) => tokens.push(...found.map(Number));
      const streamer = new TextStreamer(pipe.tokenizer, {
        skip_prompt: true, callback_function: () => {}, token_callback_function: take,
      });
      await pipe(text, { max_new_tokens: newTokens, do_sample: false, streamer });
      outputs.push(tokens);
    } else if (task === "text-classification") {
      outputs.push((await pipe(text))[0]);
    } else if (task === "token-classification") {
      const found = await pipe(text, { ignore_labels: [] });
      outputs.push(found.map(({ entity }) => pipe.model.config.label2id[entity]));
    } else {
      const hidden = await pipe(text);
      const last = hidden.slice(0, -1).to("float32");
      outputs.push({ shape: hidden.dims, values: Array.from(last.data.slice(0, 16)) });
    }
  }
  const result = { outputs, batch: null };
  if (batch) {
    try {
      result.batch = task === "text-generation" ? await rows(pipe, batch, newTokens) : await pipe(batch);
    } catch (error) {
      result.batch_refused = line(error);
    }
  }
  return result;
}

// Generates for texts of different lengths, which the pipeline pads on the left.
async function rows(pipe, texts, newTokens) {
  pipe.tokenizer.padding_side = "left";
  const inputs = pipe.tokenizer(texts, { padding: true, add_special_tokens: false });
  const found = await pipe.model.generate({ ...inputs, max_new_tokens: newTokens, do_sample: false });
  return found.tolist().map((row) => row.slice(inputs.input_ids.dims[1]).map(Number));
}

// The most likely span of the context; the scores are those of the context's tokens.
async function answer(tokenizer, model, question, context) {
  const before = tokenizer(question).input_ids.dims[1];
  const inputs = tokenizer(question, { text_pair: context });
  const { start_logits, end_logits } = await model(inputs);
  const starts = softmax(start_logits.to("float32").tolist()[0].slice(before));
  const ends = softmax(end_logits.to("float32").tolist()[0].slice(before));
  let best = { score: -1 };
  for (let first = 0; first < starts.length; first++) {
    for (let last = first; last < Math.min(first + LONGEST_ANSWER, ends.length); last++) {
      const score = starts[first] * ends[last];
      if (score > best.score) best = { first, last, score };
    }
  }
  const tokens = inputs.input_ids.tolist()[0].slice(before + best.first, before + best.last + 1);
  return { answer: tokenizer.decode(tokens).trim(), score: best.score };
}

export function softmax(values) {
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((one, other) => one + other, 0);
  return powers.map((power) => power / sum);
}

export function line(error) {
  return String(error?.message ?? error).trim().split("\n")[0];
}
