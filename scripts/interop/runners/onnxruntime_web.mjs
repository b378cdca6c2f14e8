// ONNX Runtime as WebAssembly, in Node: what a browser runs, without the browser.

import { readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import * as ort from "onnxruntime-web/wasm";
import { run } from "./onnxruntime_tasks.mjs";

const [, , file, result] = process.argv;
const { artifact, task, texts, batch, max_new_tokens } = JSON.parse(readFileSync(file, "utf8"));
ort.env.wasm.numThreads = 1;
const folder = {
  json: async (name) => JSON.parse(await readFile(join(artifact, name), "utf8")),
  session: async (graph) => {
    const data = await readFile(join(artifact, `${graph}_data`));
    const externalData = [{ path: `${basename(graph)}_data`, data }];
    return ort.InferenceSession.create(await readFile(join(artifact, graph)), { externalData, logSeverityLevel: 3 });
  },
};
let found;
try {
  found = await run(ort, folder, task, texts, batch, max_new_tokens);
} catch (error) {
  found = { refused: String(error?.message ?? error).trim().split("\n")[0] };
}
found.runtime = `onnxruntime-web ${ort.env.versions.web} (Node ${process.version})`;
writeFileSync(result, JSON.stringify(found));
