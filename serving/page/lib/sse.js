// Server-sent events of a streamed response.

const LONGEST_EVENT = 16 << 20; // characters

/** Yield the data of each event of a body (a ReadableStream of bytes). Throws where an event is too long. */
export async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await reader.read();
      // A line that ends in \r at the end of a chunk waits for the \n that may follow.
      const text = rest + (value ?? "");
      const lines = text.split(/\r\n|\n|\r(?!$)/);
      rest = done ? "" : lines.pop();
      if (rest.length > LONGEST_EVENT) throw new Error("an event of the stream is too long");
      for (const line of lines) {
        if (line === "") {
          if (data.length > 0) yield data.join("\n");
          data = [];
        } else if (line.startsWith("data:")) {
          data.push(line.slice(line[5] === " " ? 6 : 5));
        } // comments, names and ids of events have no meaning here
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
