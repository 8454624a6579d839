/** Drawing results over frames: masks in their classes' colours, boxes with names, keypoints, dense maps in colours. */

import { colorValues, drawValues } from "./dense.js";

/** @typedef {import("./vendor/messages.js").ClassInfo} ClassInfo */
/** @typedef {import("./vendor/messages.js").Detection} Detection */
/** @typedef {import("./vendor/messages.js").Keypoints} Keypoints */
/** @typedef {import("./vendor/messages.js").Result} Result */
/** @typedef {CanvasRenderingContext2D} Context */
/** @typedef {{result: Result, masks: CanvasImageSource | null, values: CanvasImageSource | null}} Prepared a result with its decoded maps */

const OPACITY = 0.5; // of the masks
export const MIN_CONFIDENCE = 0.5; // objects below it aren't shown
const MIN_RELIABILITY = 0.6; // boxes below it are dashed

/** Draws one stream's results. */
export class Overlay {
  #palette = new Uint32Array(256); // RGBA pixels, little-endian, by class id
  /** @type {Map<number, string>} */ #colors = new Map();
  #skeleton;

  /** @param {ClassInfo[]} classes @param {Keypoints | null} [keypoints] */
  constructor(classes, keypoints) {
    this.#skeleton = keypoints?.skeleton ?? [];
    for (const { id, color } of classes) {
      if (id > 255) continue; // Label maps are bytes.
      const [r, g, b] = color;
      this.#palette[id] = ((Math.round(255 * OPACITY) << 24) | (b << 16) | (g << 8) | r) >>> 0;
      this.#colors.set(id, `rgb(${r} ${g} ${b})`);
    }
  }

  /** Decode a result's maps. @param {Result} result @returns {Promise<Prepared>} */
  async prepare(result) {
    const { labels_png: png, regions = [] } = result.segmentation ?? {};
    const { detections = [], dense } = result;
    const masks = png ? await this.#colorMasks(png, regions.map(({ class_id }) => class_id)) : this.#paintMasks(detections);
    const values = dense?.values_png ? await colorValues(dense.values_png) : null;
    return { result, masks, values };
  }

  /** Draw a result over a picture that fills the canvas. @param {Context} context @param {Prepared} prepared */
  draw(context, { result, masks, values }) {
    const { width, height } = context.canvas;
    if (values) drawValues(context, values);
    if (masks) context.drawImage(masks, 0, 0, width, height);
    this.#drawBoxes(context, result);
    this.#drawKeyAge(context, result);
  }

  /** Draw "KEY" on a key frame, and the key age on other frames. @param {Context} context @param {Result} result */
  #drawKeyAge(context, { kind, key_age }) {
    const size = Math.max(11, Math.round(Math.min(context.canvas.width, context.canvas.height) / 28));
    context.font = `600 ${size}px Inter, system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const width = context.measureText("KEY").width + 1.4 * size;
    context.fillStyle = kind === "key" ? "#ffc107" : "rgb(14 18 24 / 72%)";
    context.beginPath();
    context.roundRect(size * 0.8, size * 0.8, width, size * 1.7, size * 0.4);
    context.fill();
    context.fillStyle = kind === "key" ? "#1e1600" : "#fff";
    context.fillText(kind === "key" ? "KEY" : `+${key_age}`, size * 0.8 + width / 2, size * 1.7);
    context.textAlign = "start";
  }

  /** @param {Context} context @param {Result} result */
  #drawBoxes(context, result) {
    const { width, height } = context.canvas;
    const line = Math.max(2, Math.round(Math.min(width, height) / 240));
    context.lineWidth = line;
    context.font = `500 ${7 + 5 * line}px Inter, system-ui, sans-serif`;
    context.textBaseline = "middle";
    for (const { class_id, name, confidence, xyxy, reliability, keypoints, track_id } of [...(result.detections ?? [])].reverse()) {
      const color = this.#colors.get(class_id);
      if (!color || confidence < MIN_CONFIDENCE) continue;
      const [x1, x2] = [xyxy[0], xyxy[2]].map((x) => (x * width) / result.width);
      const [y1, y2] = [xyxy[1], xyxy[3]].map((y) => (y * height) / result.height);
      context.strokeStyle = color;
      context.setLineDash((reliability ?? 1) < MIN_RELIABILITY ? [4 * line, 3 * line] : []);
      context.strokeRect(x1 + line / 2, y1 + line / 2, Math.max(1, x2 - x1 - line), Math.max(1, y2 - y1 - line));
      context.setLineDash([]);
      this.#drawKeypoints(context, (keypoints ?? []).map(([x, y, score]) => [(x * width) / result.width, (y * height) / result.height, score]), color, line);
      this.#drawLabel(context, `${name}${track_id ? ` #${track_id}` : ""} ${Math.round(100 * confidence)} %`, x1, y1, color, line);
    }
  }

  /** Draw certain points, and the lines between them. @param {Context} context @param {number[][]} points @param {string} color @param {number} line */
  #drawKeypoints(context, points, color, line) {
    const isCertain = (/** @type {number} */ index) => points[index]?.[2] >= MIN_CONFIDENCE;
    context.beginPath();
    for (const [a, b] of this.#skeleton) {
      if (!isCertain(a) || !isCertain(b)) continue;
      context.moveTo(points[a][0], points[a][1]);
      context.lineTo(points[b][0], points[b][1]);
    }
    context.stroke();
    points.forEach(([x, y], index) => {
      if (!isCertain(index)) return;
      for (const [radius, ink] of /** @type {[number, string][]} */ ([[line + 1, color], [Math.max(1, line - 1), "#fff"]])) {
        context.fillStyle = ink;
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.fill();
      }
    });
  }

  /** @param {Context} context @param {string} text @param {number} x @param {number} y @param {string} color @param {number} line */
  #drawLabel(context, text, x, y, color, line) {
    const height = 12 + 6 * line;
    const top = y >= height ? y - height : y;
    context.fillStyle = "rgb(14 18 24 / 80%)";
    context.fillRect(x, top, context.measureText(text).width + 12 + line, height);
    context.fillStyle = color;
    context.fillRect(x, top, line, height);
    context.fillStyle = "#fff";
    context.fillText(text, x + line + 6, top + height / 2);
  }

  /** Paint the masks of objects, the most confident in front. @param {Detection[]} detections @returns {OffscreenCanvas | null} */
  #paintMasks(detections) {
    const shown = detections.filter(({ class_id, confidence, mask }) => mask && confidence >= MIN_CONFIDENCE && this.#colors.has(class_id));
    if (!shown[0]?.mask) return null;
    const [height, width] = shown[0].mask.size;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    if (!context) return null;
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    for (const { class_id, mask } of shown.reverse()) {
      let place = 0; // down the columns
      (mask?.counts ?? []).forEach((count, index) => {
        const end = place + count;
        if (index % 2 === 0) place = end; // outside of the mask
        for (; place < end; place++) pixels[(place % height) * width + Math.floor(place / height)] = this.#palette[class_id];
      });
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  /**
   * Decode a label map into coloured masks.
   * @param {string} png in base64
   * @param {number[]} shown the classes that have a region, which the background doesn't have
   */
  async #colorMasks(png, shown) {
    const palette = new Uint32Array(256);
    for (const id of shown) palette[id] = this.#palette[id];
    const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
    const blob = new Blob([bytes], { type: "image/png" });
    // The pixels are class ids, so no colour conversion may change them.
    const labels = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
    const canvas = new OffscreenCanvas(labels.width, labels.height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) return null;
    context.drawImage(labels, 0, 0);
    labels.close();
    const image = context.getImageData(0, 0, canvas.width, canvas.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let i = 0; i < pixels.length; i++) pixels[i] = palette[pixels[i] & 255];
    context.putImageData(image, 0, 0);
    return canvas;
  }
}
