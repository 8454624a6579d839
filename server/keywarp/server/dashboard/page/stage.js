/** The stage: the picture, a note over it, what is to be seen below it. */

import { h } from "./dom.js";
import { percent } from "./format.js";
import { swatch } from "./models.js";

/** @typedef {import("./vendor/messages.js").ClassInfo} ClassInfo */
/** @typedef {import("./vendor/messages.js").Result} Result */

const NAMES = 6; // in the legend

/** A canvas with its legend. */
export class Stage {
  #canvas = h("canvas", { role: "img", width: 640, height: 360 });
  #note = h("div", { class: "stage-note" });
  #pen = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext("2d", { alpha: false }));
  #shown = "";
  legend = h("div", { class: "legend", "aria-label": "What was found", role: "group" });
  element = h("div", { class: "stage" }, this.#canvas, this.#note);
  pictures = 0; // that were drawn

  /** @param {string} label what the picture shows, for those who don't see it */
  constructor(label) {
    this.#canvas.setAttribute("aria-label", label);
  }

  /**
   * Show a picture.
   *
   * @param {CanvasImageSource} picture
   * @param {number} width
   * @param {number} height
   * @param {(pen: CanvasRenderingContext2D) => void} [draw] over it
   */
  show(picture, width, height, draw) {
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
      this.#canvas.style.aspectRatio = `${width} / ${height}`;
    }
    this.#pen.drawImage(picture, 0, 0, width, height);
    draw?.(this.#pen);
    this.pictures += 1;
    this.#canvas.dataset.pictures = String(this.pictures);
  }

  /** Say something over the picture; nothing: show it plainly. @param {...(Node | string)} children */
  note(...children) {
    this.#note.replaceChildren(...children);
  }

  /** Name what was found. @param {Result} result @param {ClassInfo[]} classes */
  name(result, classes) {
    const rows = result.detections ? counts(result.detections) : shares(result.segmentation?.regions ?? []);
    const key = JSON.stringify(rows);
    if (key === this.#shown) return;
    this.#shown = key;
    const items = rows.slice(0, NAMES).map(([id, name, figure]) => {
      const color = classes.find((one) => one.id === id)?.color ?? [160, 160, 160];
      return h("span", { class: "legend-item" }, swatch(color), h("b", {}, name), figure);
    });
    this.legend.replaceChildren(...(items.length ? items : [h("span", { class: "muted" }, "Nothing found")]));
  }
}

/** @param {NonNullable<Result["detections"]>} detections @returns {[number, string, string][]} */
function counts(detections) {
  /** @type {Map<number, [string, number]>} */ const found = new Map();
  for (const { class_id, name, confidence } of detections) {
    if (confidence >= 0.5) found.set(class_id, [name, (found.get(class_id)?.[1] ?? 0) + 1]);
  }
  return [...found].sort((a, b) => b[1][1] - a[1][1] || a[0] - b[0]).map(([id, [name, n]]) => [id, name, String(n)]);
}

/** @param {{class_id: number, name: string, area: number}[]} regions @returns {[number, string, string][]} */
function shares(regions) {
  const large = regions.filter(({ area }) => area >= 0.001).sort((a, b) => a.class_id - b.class_id);
  return large.map(({ class_id, name, area }) => [class_id, name, area < 0.01 ? "<1 %" : `${percent(area)} %`]);
}
