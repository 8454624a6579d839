/** The wall: live pictures of all streams with their states, over one connection. */

import { client, fleetStreams, keepReading, poll, sentence } from "./api.js";
import { h, setText } from "./dom.js";
import { missingNotice, pullButton, showMissing, showState } from "./streams.js";

/** @typedef {import("./vendor/messages.js").StreamInfo} StreamInfo */

const PICTURES = { fps: 3, width: 480, fleet: true };

/** @param {AbortSignal} signal */
export function wallView(signal) {
  /** @type {Map<string, Tile>} */ const tiles = new Map(); // by stream id
  const list = h("ol", { class: "wall", "aria-label": "Streams" });
  const notice = missingNotice();
  const empty = h("p", { class: "card padded muted", hidden: true }, "There are no streams. Cameras that the server pulls, and streams that clients send, appear here.");
  void poll(
    async (inner) => {
      const { streams, missing } = await fleetStreams(inner);
      showMissing(notice, missing);
      streams.sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
      const ids = new Set(streams.map(({ id }) => id));
      for (const [id, tile] of tiles) {
        if (ids.has(id)) continue;
        tile.element.remove();
        tiles.delete(id);
      }
      let next = list.firstElementChild;
      for (const stream of streams) {
        const tile = tiles.get(stream.id) ?? new Tile(stream.id);
        tiles.set(stream.id, tile);
        tile.show(stream);
        if (tile.element === next) next = next.nextElementSibling;
        else list.insertBefore(tile.element, next);
      }
      empty.hidden = streams.length > 0;
    },
    1,
    signal,
  );
  void keepReading(async (inner) => {
    for await (const { stream, jpeg } of client.previews({ ...PICTURES, signal: inner })) {
      const picture = await createImageBitmap(jpeg);
      tiles.get(stream)?.paint(picture);
      picture.close();
    }
    return true;
  }, signal);
  return h("div", {}, h("div", { class: "head" }, h("h1", {}, "Wall"), h("div", { class: "actions" }, pullButton())), notice, list, empty);
}

/** @param {StreamInfo} stream */
const nameOf = ({ title, id }) => title ?? id;

/** One stream's picture with its name and state. */
class Tile {
  #canvas = h("canvas", { role: "img", width: 320, height: 180 });
  #context = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext("2d", { alpha: false }));
  #message = h("div", { class: "viewer-message small" });
  #name = h("span", { class: "wall-name" });
  #badge = h("span", { class: "badge" });
  #pictures = 0;
  element;

  /** @param {string} id */
  constructor(id) {
    this.element = h(
      "li",
      { class: "card" },
      h(
        "a",
        { href: `#/streams/${encodeURIComponent(id)}` },
        h("div", { class: "viewer" }, this.#canvas, this.#message),
        h("div", { class: "wall-caption" }, this.#name, this.#badge),
      ),
    );
  }

  /** @param {StreamInfo} stream */
  show(stream) {
    const { state, problem } = stream;
    setText(this.#name, nameOf(stream));
    if (this.#canvas.getAttribute("aria-label") === null) this.#canvas.setAttribute("aria-label", `Live picture of ${nameOf(stream)}`);
    showState(this.#badge, stream);
    const isAway = state === "retrying" || state === "unauthorized" || state === "failed";
    if (isAway && problem) setText(this.#message, sentence(problem));
    else if (state === "paused") setText(this.#message, "Paused");
    else setText(this.#message, this.#pictures ? "" : "Waiting for a frame");
  }

  /** @param {ImageBitmap} picture */
  paint(picture) {
    const { width, height } = picture;
    if (this.#canvas.width !== width || this.#canvas.height !== height) [this.#canvas.width, this.#canvas.height] = [width, height];
    this.#context.drawImage(picture, 0, 0);
    this.#pictures += 1;
    this.#canvas.dataset.pictures = String(this.#pictures);
  }
}
