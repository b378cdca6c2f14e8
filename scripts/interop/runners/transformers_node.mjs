// transformers.js in Node: the pipeline of each task, on the artifact's folder.

import { readFileSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import * as library from "@huggingface/transformers";
import { line, run } from "./transformers_tasks.mjs";

const [, , file, result] = process.argv;
const { artifact, task, texts, batch, max_new_tokens } = JSON.parse(readFileSync(file, "utf8"));
library.env.allowRemoteModels = false;
library.env.localModelPath = `${dirname(artifact)}/`;
let found;
try {
  found = await run(library, basename(artifact), task, texts, batch, max_new_tokens);
} catch (error) {
  found = { refused: line(error) };
}
found.runtime = `transformers.js ${library.env.version} (Node ${process.version})`;
writeFileSync(result, JSON.stringify(found));
