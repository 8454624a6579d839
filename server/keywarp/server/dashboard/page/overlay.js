/** What was found on a frame, drawn over it: masks in their classes' colours, boxes with names. */

/** @typedef {import("./vendor/messages.js").ClassInfo} ClassInfo */
/** @typedef {import("./vendor/messages.js").Result} Result */
/** @typedef {CanvasRenderingContext2D} Pen */
/** @typedef {{result: Result, masks: CanvasImageSource | null}} Found a result whose masks are ready to be drawn */

const OPACITY = 0.5; // of a class's colour over the picture
const CONFIDENCE = 0.5; // less certain objects aren't drawn

/** Draws one stream's results. */
export class Overlay {
  #palette = new Uint32Array(256); // by class id, as a little-endian pixel
  /** @type {Map<number, string>} */ #colors = new Map();

  /** @param {ClassInfo[]} classes */
  constructor(classes) {
    for (const { id, color } of classes) {
      if (id === 0 || id > 255) continue; // the background
      const [r, g, b] = color;
      this.#palette[id] = ((Math.round(255 * OPACITY) << 24) | (b << 16) | (g << 8) | r) >>> 0;
      this.#colors.set(id, `rgb(${r} ${g} ${b})`);
    }
  }

  /** Decode a result's masks. @param {Result} result @returns {Promise<Found>} */
  async prepare(result) {
    const png = result.segmentation?.labels_png;
    return { result, masks: png ? await this.#masks(png) : null };
  }

  /** Draw on a picture that fills the canvas. @param {Pen} pen @param {Found} found */
  draw(pen, { result, masks }) {
    const { width, height } = pen.canvas;
    if (masks) pen.drawImage(masks, 0, 0, width, height);
    this.#boxes(pen, result);
    this.#tag(pen, result);
  }

  /** KEY, or how many frames ago the key frame was. @param {Pen} pen @param {Result} result */
  #tag(pen, { kind, key_age }) {
    const size = Math.max(11, Math.round(Math.min(pen.canvas.width, pen.canvas.height) / 28));
    pen.font = `600 ${size}px Inter, system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    const width = pen.measureText("KEY").width + 1.4 * size;
    pen.fillStyle = kind === "key" ? "#ffc107" : "rgb(14 18 24 / 72%)";
    pen.beginPath();
    pen.roundRect(size * 0.8, size * 0.8, width, size * 1.7, size * 0.4);
    pen.fill();
    pen.fillStyle = kind === "key" ? "#1e1600" : "#fff";
    pen.fillText(kind === "key" ? "KEY" : `+${key_age}`, size * 0.8 + width / 2, size * 1.7);
    pen.textAlign = "start";
  }

  /** @param {Pen} pen @param {Result} result */
  #boxes(pen, result) {
    const { width, height } = pen.canvas;
    const line = Math.max(2, Math.round(Math.min(width, height) / 240));
    pen.lineWidth = line;
    pen.font = `500 ${7 + 5 * line}px Inter, system-ui, sans-serif`;
    pen.textBaseline = "middle";
    for (const { class_id, name, confidence, xyxy } of [...(result.detections ?? [])].reverse()) {
      const color = this.#colors.get(class_id);
      if (!color || confidence < CONFIDENCE) continue;
      const [x1, x2] = [xyxy[0], xyxy[2]].map((x) => (x * width) / result.width);
      const [y1, y2] = [xyxy[1], xyxy[3]].map((y) => (y * height) / result.height);
      pen.strokeStyle = color;
      pen.strokeRect(x1 + line / 2, y1 + line / 2, Math.max(1, x2 - x1 - line), Math.max(1, y2 - y1 - line));
      this.#label(pen, `${name} ${Math.round(100 * confidence)} %`, x1, y1, color, line);
    }
  }

  /** @param {Pen} pen @param {string} text @param {number} x @param {number} y @param {string} color @param {number} line */
  #label(pen, text, x, y, color, line) {
    const tall = 12 + 6 * line;
    const top = y >= tall ? y - tall : y;
    pen.fillStyle = "rgb(14 18 24 / 80%)";
    pen.fillRect(x, top, pen.measureText(text).width + 12 + line, tall);
    pen.fillStyle = color;
    pen.fillRect(x, top, line, tall);
    pen.fillStyle = "#fff";
    pen.fillText(text, x + line + 6, top + tall / 2);
  }

  /** @param {string} png base64 */
  async #masks(png) {
    const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
    const blob = new Blob([bytes], { type: "image/png" });
    // The pixels are ids, not colours: nothing may be converted.
    const labels = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const canvas = new OffscreenCanvas(labels.width, labels.height);
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    if (!pen) return null;
    pen.drawImage(labels, 0, 0);
    labels.close();
    const image = pen.getImageData(0, 0, canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = this.#palette[pixels[i] & 255];
    pen.putImageData(image, 0, 0);
    return canvas;
  }
}
