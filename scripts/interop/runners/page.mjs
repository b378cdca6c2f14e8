// Opens scripts/interop/page in headless Chromium, writes a prompt into it and reads the text that it streams.
// PAGE_FOLDER ARTIFACT PROMPT NEW_TOKENS RESULT.json [SCREENSHOT.png [webgpu]]

import { writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";
import { withPage } from "./browser.mjs";

const [, , pageFolder, artifact, prompt, newTokens, result, screenshot, device = "wasm"] = process.argv;
const folders = {
  "/models/": dirname(artifact), "/node_modules/": `${import.meta.dirname}/node_modules`, "/": pageFolder,
};
const found = await withPage(folders, async (page, address) => {
  const lines = [];
  page.on("console", (message) => lines.push(message.text()));
  await page.goto(`${address}/index.html?model=${encodeURIComponent(basename(artifact))}&device=${device}`);
  try {
    await page.waitForFunction(() => !document.getElementById("go").disabled, null, { timeout: 25_000 });
    await page.fill("#prompt", prompt);
    await page.fill("#count", newTokens);
    await page.click("#go");
    await page.waitForFunction(() => document.getElementById("text").dataset.tokens, null, { timeout: 25_000 });
  } catch (error) {
    lines.push(String(error));
  }
  if (screenshot) await page.screenshot({ path: screenshot });
  const text = await page.locator("#text").textContent();
  const tokens = JSON.parse((await page.locator("#text").getAttribute("data-tokens")) ?? "null");
  const state = {};
  for (const id of ["status", "backend", "speed"]) state[id] = await page.locator(`#${id}`).textContent();
  return { text, tokens, ...state, lines };
}, { webgpu: device === "webgpu" });
writeFileSync(result, JSON.stringify(found));
