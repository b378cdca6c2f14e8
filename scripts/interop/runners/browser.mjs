// A headless Chromium on a local server: nothing outside of it is asked.

import { createReadStream } from "node:fs";
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

const TYPES = { ".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript", ".json": "application/json",
  ".wasm": "application/wasm" };
const FLAGS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const NO_GPU = ["--disable-gpu"];
const SOFTWARE_GPU = ["--enable-unsafe-webgpu", "--enable-features=Vulkan", "--use-webgpu-adapter=swiftshader"];

// Serves folders by their prefixes, the first that fits; the headers let WebAssembly have threads.
async function serve(folders) {
  const server = createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    const prefix = Object.keys(folders).find((one) => path.startsWith(one));
    const file = prefix && join(folders[prefix], path.slice(prefix.length));
    const size = file && (await stat(file).then((found) => found.isFile() && found.size, () => false));
    const headers = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };
    if (size === false || size === undefined) return response.writeHead(404, headers).end();
    const type = TYPES[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { ...headers, "Content-Type": type, "Content-Length": size });
    if (request.method === "HEAD") return response.end();
    createReadStream(file).pipe(response);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return server;
}

// Calls `use` with a page and the server's address; requests to any other address fail.
export async function withPage(folders, use, { webgpu = false } = {}) {
  const server = await serve(folders);
  const profile = await mkdtemp(join(tmpdir(), "intaglio-chromium-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: [...FLAGS, ...(webgpu ? SOFTWARE_GPU : NO_GPU)],
    viewport: { width: 900, height: 640 },
  });
  try {
    const address = `http://127.0.0.1:${server.address().port}`;
    await context.route((url) => url.protocol.startsWith("http") && url.origin !== address, (route) => route.abort());
    const page = await context.newPage();
    return await use(page, address, context.browser()?.version() ?? "");
  } finally {
    await context.close();
    server.close();
    await rm(profile, { recursive: true, force: true });
  }
}
