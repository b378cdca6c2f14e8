// Loads an artifact with transformers.js and streams its text. Needs node_modules/ beside it: npm install @huggingface/transformers

import * as library from "./node_modules/@huggingface/transformers/dist/transformers.min.js";

const { AutoConfig, TextStreamer, env, pipeline } = library;
env.allowLocalModels = true;
env.allowRemoteModels = false;
env.localModelPath = new URL("models/", import.meta.url).pathname; // a path: an address would count as remote

let generator;

async function load(id, device) {
  // On the CPU the smaller build: the other one has no GatherBlockQuantized there, the lookup in a quantized embedding.
  const build = `node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded${device === "webgpu" ? ".asyncify" : ""}`;
  const wasm = new URL(build, import.meta.url).href;
  env.backends.onnx.wasm.wasmPaths = { mjs: `${wasm}.mjs`, wasm: `${wasm}.wasm` };
  const config = await AutoConfig.from_pretrained(id);
  // transformers.js has no class for exaone4; that of qwen2 has the same inputs and outputs
  if (config.model_type === "exaone4") config.model_type = "qwen2";
  const progress_callback = ({ status, progress }) => {
    if (status === "progress_total") postMessage({ status: `loading, ${Math.round(progress)} %` });
  };
  generator = await pipeline("text-generation", id, { config, device, progress_callback });
  const threads = device === "wasm" && !crossOriginIsolated ? ", one thread" : "";
  postMessage({ ready: true, status: "ready", backend: `${device}${threads}` });
}

async function generate(prompt, newTokens) {
  const tokens = [];
  let first;
  const streamer = new TextStreamer(generator.tokenizer, {
    skip_prompt: true,
    callback_function: (text) => postMessage({ text }),
    token_callback_function: (found) => {
      tokens.push(...found.map(Number));
      first ??= performance.now();
      const seconds = (performance.now() - first) / 1000;
      if (seconds > 0) postMessage({ status: "writing", speed: (tokens.length - 1) / seconds });
    },
  });
  await generator(prompt, { max_new_tokens: newTokens, do_sample: false, streamer });
  postMessage({ ready: true, status: `ready, ${tokens.length} tokens`, tokens });
}

onmessage = async ({ data }) => {
  try {
    await (data.load ? load(data.load, data.device) : generate(data.prompt, data.newTokens));
  } catch (error) {
    postMessage({ ready: !data.load, status: String(error?.message ?? error) });
  }
};
