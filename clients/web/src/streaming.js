/** Reading endless response bodies while they arrive. */

/**
 * Read a body chunk by chunk.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<Uint8Array, void, void>}
 */
async function* readChunks(body) {
  const reader = body.getReader(); // Not every browser can iterate over a ReadableStream.
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // The request may have been aborted already.
  }
}

/**
 * Read a text body line by line. Empty lines are left out.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<string, void, void>}
 */
export async function* readLines(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of readChunks(body)) {
    const found = (rest + decoder.decode(chunk, { stream: true })).split("\n");
    rest = found.pop() ?? "";
    for (const line of found) if (line) yield line;
  }
  if (rest) yield rest;
}

/**
 * Read a `multipart/x-mixed-replace` body part by part. Each part must have a Content-Length header.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<{headers: Headers, blob: Blob}, void, void>}
 */
export async function* readParts(body) {
  let buffer = new Uint8Array(0);
  let end = -1; // offset of the current part's end, or -1 until its headers have been read
  let start = 0;
  let headers = new Headers();
  for await (const chunk of readChunks(body)) {
    const joined = new Uint8Array(buffer.length + chunk.length);
    joined.set(buffer);
    joined.set(chunk, buffer.length);
    buffer = joined;
    for (;;) {
      if (end < 0) {
        start = endOfHeaders(buffer);
        if (start < 0) break;
        headers = headersOf(new TextDecoder("latin1").decode(buffer.subarray(0, start)));
        const length = headers.get("content-length");
        if (!length) throw new Error("a part of the multipart response has no Content-Length header");
        end = start + Number(length);
      }
      if (buffer.length < end) break;
      const type = headers.get("content-type")?.split(";")[0] ?? "";
      yield { headers, blob: new Blob([buffer.slice(start, end)], { type }) };
      buffer = buffer.slice(end);
      end = -1;
    }
  }
}

/** @param {string} text the boundary and the headers of a part, line by line @returns {Headers} */
function headersOf(text) {
  const headers = new Headers();
  for (const [, name, value] of text.matchAll(/^([\w-]+):[ \t]*(.*?)\r?$/gm)) headers.append(name, value);
  return headers;
}

/** @param {Uint8Array} bytes @returns {number} the offset just after the empty line, or -1 if it hasn't arrived yet */
function endOfHeaders(bytes) {
  for (let at = bytes.indexOf(13); at >= 0; at = bytes.indexOf(13, at + 1)) {
    if (bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) return at + 4;
  }
  return -1;
}
