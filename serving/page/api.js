// Requests to the server that this page is from.

import { serverSentEvents } from "./lib/sse.js";
import { forgotten } from "./lib/storage.js";

const KEY = "intaglio.key";

/** An answer that is an error; `status` is 0 where there was no answer. */
export class ApiError extends Error {
  constructor(message, status, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The API key of this tab. It is forgotten when the tab is closed. */
export const key = {
  get: () => forgotten.getItem(KEY) ?? "",
  set: (value) => (value ? forgotten.setItem(KEY, value) : forgotten.removeItem(KEY)),
};

/** What to do where a key is missing or wrong: returns true where there is another one to try. */
let askForKey = async () => false;
export function onUnauthorized(ask) {
  askForKey = ask;
}

/** Return the JSON of a path. Throws ApiError; or AbortError where the signal stopped it. */
export async function get(path, signal) {
  return (await send(path, { signal })).json();
}

export async function post(path, body, signal) {
  return (await send(path, posted(body, signal))).json();
}

/** Yield the chunks of a streamed answer. Throws ApiError, or AbortError. */
export async function* stream(path, body, signal) {
  const response = await send(path, posted({ ...body, stream: true }, signal));
  try {
    for await (const data of serverSentEvents(response.body)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ApiError(chunk.error.message, response.status);
      yield chunk;
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // the browser's word for a lost connection
  }
  throw new ApiError("the connection ended before the answer did", 0);
}

function posted(body, signal) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal };
}

async function send(path, options) {
  // Relative to the page, so that a proxy may serve it under a path of its own.
  const url = new URL(path, document.baseURI);
  for (;;) {
    const sent = key.get();
    const headers = sent ? { ...options.headers, Authorization: `Bearer ${sent}` } : options.headers;
    let response;
    try {
      response = await fetch(url, { ...options, headers, credentials: "same-origin", cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError("the server does not answer", 0);
    }
    if (response.ok) return response;
    const error = await failure(response);
    if (response.status !== 401 || !(await askForKey(error.message, sent !== ""))) throw error;
  }
}

async function failure(response) {
  const retryAfter = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  let message = `the server answered ${response.status}`;
  try {
    message = (await response.json()).error.message;
  } catch {
    // not in the protocol's form: a proxy's, for instance
  }
  return new ApiError(message, response.status, Number.isFinite(retryAfter) ? retryAfter : null);
}
