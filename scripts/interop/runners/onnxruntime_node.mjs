// ONNX Runtime in Node, without another library but a tokenizer.

import { readFileSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as ort from "onnxruntime-node";
import { run } from "./onnxruntime_tasks.mjs";

const [, , file, result] = process.argv;
const { artifact, task, texts, batch, max_new_tokens } = JSON.parse(readFileSync(file, "utf8"));
const folder = {
  json: async (name) => JSON.parse(await readFile(join(artifact, name), "utf8")),
  session: (graph) => ort.InferenceSession.create(join(artifact, graph), { logSeverityLevel: 3 }),
};
let found;
try {
  found = await run(ort, folder, task, texts, batch, max_new_tokens);
} catch (error) {
  found = { refused: String(error?.message ?? error).trim().split("\n")[0] };
}
found.runtime = `onnxruntime-node ${ort.env.versions.node} (Node ${process.version})`;
writeFileSync(result, JSON.stringify(found));
