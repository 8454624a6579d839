/** Answers without an end, read while they come. */

/**
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<Uint8Array, void, void>}
 */
async function* pieces(body) {
  const reader = body.getReader(); // not every browser can iterate over a stream
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // it may have been aborted already
  }
}

/**
 * The lines of a text that comes in pieces.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<string, void, void>}
 */
export async function* lines(body) {
  const decoder = new TextDecoder();
  let rest = "";
  for await (const piece of pieces(body)) {
    const found = (rest + decoder.decode(piece, { stream: true })).split("\n");
    rest = found.pop() ?? "";
    for (const line of found) if (line) yield line;
  }
  if (rest) yield rest;
}

/**
 * The parts of a `multipart/x-mixed-replace` body, each of which gives its Content-Length.
 *
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<Blob, void, void>}
 */
export async function* parts(body) {
  let held = new Uint8Array(0);
  let end = -1; // of the part whose headers have been read
  let start = 0;
  let type = "";
  for await (const piece of pieces(body)) {
    const joined = new Uint8Array(held.length + piece.length);
    joined.set(held);
    joined.set(piece, held.length);
    held = joined;
    for (;;) {
      if (end < 0) {
        start = endOfHeaders(held);
        if (start < 0) break;
        const headers = new TextDecoder("latin1").decode(held.subarray(0, start));
        const length = /^content-length:\s*(\d+)/im.exec(headers)?.[1];
        if (!length) throw new Error("a part of a multipart body doesn't say how long it is");
        type = /^content-type:\s*([^\s;]+)/im.exec(headers)?.[1] ?? "";
        end = start + Number(length);
      }
      if (held.length < end) break;
      yield new Blob([held.slice(start, end)], { type });
      held = held.slice(end);
      end = -1;
    }
  }
}

/** @param {Uint8Array} bytes @returns {number} what follows the empty line; -1: there is none yet */
function endOfHeaders(bytes) {
  for (let at = bytes.indexOf(13); at >= 0; at = bytes.indexOf(13, at + 1)) {
    if (bytes[at + 1] === 10 && bytes[at + 2] === 13 && bytes[at + 3] === 10) return at + 4;
  }
  return -1;
}
