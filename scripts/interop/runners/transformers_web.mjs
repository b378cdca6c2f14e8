// transformers.js in headless Chromium, as WebAssembly: the tasks of transformers_tasks.mjs, run by the browser.

import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { withPage } from "./browser.mjs";
import { line } from "./transformers_tasks.mjs";

const [, , file, result] = process.argv;
const { artifact, task, texts, batch, max_new_tokens } = JSON.parse(readFileSync(file, "utf8"));
const here = import.meta.dirname;
const folders = { "/models/": dirname(artifact), "/node_modules/": `${here}/node_modules`, "/": here };
const found = await withPage(folders, async (page, address, version) => {
  let answer;
  try {
    await page.goto(`${address}/blank.html`);
    answer = await page.evaluate(inPage, [basename(artifact), task, texts, batch, max_new_tokens]);
  } catch (error) {
    answer = { refused: line(error) };
  }
  return { ...answer, runtime: `${answer.runtime ?? "transformers.js"} (Chromium ${version})` };
});
writeFileSync(result, JSON.stringify(found));

async function inPage(given) {
  const library = await import("/node_modules/@huggingface/transformers/dist/transformers.min.js");
  const { run, line } = await import("/transformers_tasks.mjs");
  const { env } = library;
  env.allowLocalModels = true;
  env.allowRemoteModels = false;
  env.localModelPath = "/models/";
  // the build that transformers.js takes by itself has no GatherBlockQuantized for the CPU
  const wasm = "/node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded";
  env.backends.onnx.wasm.wasmPaths = { mjs: `${wasm}.mjs`, wasm: `${wasm}.wasm` };
  const runtime = `transformers.js ${env.version}`;
  try {
    return { ...(await run(library, ...given)), runtime };
  } catch (error) {
    return { refused: line(error), runtime };
  }
}
