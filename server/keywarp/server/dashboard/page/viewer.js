/** The viewer: a picture, a message over it, and a legend of what was found. */

import { colorScale } from "./dense.js";
import { h } from "./dom.js";
import { percent } from "./format.js";
import { swatch } from "./models.js";
import { MIN_CONFIDENCE } from "./overlay.js";

/** @typedef {import("./vendor/messages.js").ClassInfo} ClassInfo */
/** @typedef {import("./vendor/messages.js").Result} Result */

const LEGEND_INTERVAL = 400; // milliseconds between updates of the legend's numbers, so that they stay readable
const MAX_LEGEND_ITEMS = 6;

/** A canvas with a message and a legend. */
export class Viewer {
  #canvas = h("canvas", { role: "img", width: 640, height: 360 });
  #message = h("div", { class: "viewer-message" });
  #context = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext("2d", { alpha: false }));
  #legendKey = ""; // what the legend shows
  #legendClasses = ""; // whose numbers it shows
  #legendTime = -Infinity; // of its last update, milliseconds
  legend = h("div", { class: "legend", "aria-label": "What was found", role: "group" });
  element = h("div", { class: "viewer" }, this.#canvas, this.#message);
  pictures = 0; // number of pictures shown

  /** @param {string} label a description of the picture for screen readers */
  constructor(label) {
    this.#canvas.setAttribute("aria-label", label);
  }

  /**
   * Show a picture.
   *
   * @param {CanvasImageSource} picture
   * @param {number} width
   * @param {number} height
   * @param {(context: CanvasRenderingContext2D) => void} [draw] draws over the picture
   */
  show(picture, width, height, draw) {
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
      this.#canvas.style.aspectRatio = `${width} / ${height}`;
    }
    this.#context.drawImage(picture, 0, 0, width, height);
    draw?.(this.#context);
    this.pictures += 1;
    this.#canvas.dataset.pictures = String(this.pictures);
  }

  /** Show a message over the picture, or remove it. @param {...(Node | string)} children */
  showMessage(...children) {
    this.#message.replaceChildren(...children);
  }

  /** Show what a result found: its classes at once, their numbers from time to time. @param {Result} result @param {ClassInfo[]} classes */
  showLegend(result, classes) {
    const rows = result.detections ? countObjects(result.detections) : listRegions(result.segmentation?.regions ?? []);
    const found = JSON.stringify(rows.map(([id]) => id).sort());
    if (found === this.#legendClasses && performance.now() - this.#legendTime < LEGEND_INTERVAL) return;
    this.#legendClasses = found;
    this.#legendTime = performance.now();
    if (result.dense) {
      this.#legendKey = "";
      this.legend.replaceChildren(colorScale(result.dense));
      return;
    }
    const key = JSON.stringify(rows);
    if (key === this.#legendKey) return;
    this.#legendKey = key;
    const more = rows.length - MAX_LEGEND_ITEMS;
    const items = rows.slice(0, MAX_LEGEND_ITEMS).map(([id, name, value]) => {
      const color = classes.find((one) => one.id === id)?.color ?? [160, 160, 160];
      return h("span", { class: "legend-item" }, swatch(color), h("b", {}, name), value);
    });
    if (more > 0) items.push(h("span", { class: "muted" }, `and ${more} more`));
    this.legend.replaceChildren(...(items.length ? items : [h("span", { class: "muted" }, "Nothing found")]));
  }
}

/** Count objects by class. @param {NonNullable<Result["detections"]>} detections @returns {[number, string, string][]} */
function countObjects(detections) {
  /** @type {Map<number, [string, number]>} */ const found = new Map();
  for (const { class_id, name, confidence } of detections) {
    if (confidence >= MIN_CONFIDENCE) found.set(class_id, [name, (found.get(class_id)?.[1] ?? 0) + 1]);
  }
  return [...found].sort((a, b) => b[1][1] - a[1][1] || a[0] - b[0]).map(([id, [name, n]]) => [id, name, String(n)]);
}

/** List regions, the largest first, as the mask shows all of them. @param {{class_id: number, name: string, area: number}[]} regions @returns {[number, string, string][]} */
function listRegions(regions) {
  const sorted = regions.filter(({ area }) => area > 0).sort((a, b) => b.area - a.area || a.class_id - b.class_id);
  return sorted.map(({ class_id, name, area }) => [class_id, name, area < 0.01 ? "<1 %" : `${percent(area)} %`]);
}
