/** The colours of dense maps, such as depth. They are those of the Python client (`keywarp.client.color_map`). */

import { h } from "./dom.js";

/** @typedef {import("./vendor/messages.js").Dense} Dense */

const OPACITY = 0.75; // of the colours over the picture
const DIGITS = 3; // of the numbers in the legend

/** Inferno, from the lowest number to the highest; RGB @type {[number, number, number][]} */
const ANCHORS = [
  [0, 0, 4],
  [11, 7, 36],
  [33, 12, 74],
  [61, 9, 101],
  [87, 16, 110],
  [113, 25, 110],
  [138, 34, 106],
  [163, 44, 97],
  [188, 55, 84],
  [208, 69, 69],
  [227, 89, 51],
  [241, 113, 31],
  [249, 140, 10],
  [252, 170, 15],
  [249, 201, 50],
  [242, 232, 101],
  [252, 255, 164],
];

const PALETTE = Uint32Array.from({ length: 256 }, (_, step) => {
  const place = (step / 255) * (ANCHORS.length - 1);
  const before = Math.min(Math.floor(place), ANCHORS.length - 2);
  const [r, g, b] = ANCHORS[before].map((value, i) => Math.round(value + (place - before) * (ANCHORS[before + 1][i] - value)));
  return ((Math.round(255 * OPACITY) << 24) | (b << 16) | (g << 8) | r) >>> 0; // RGBA, little-endian
});

/** Decode a dense map into colours. @param {string} png in base64, 16-bit grey @returns {Promise<OffscreenCanvas | null>} */
export async function colorValues(png) {
  const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
  const blob = new Blob([bytes], { type: "image/png" });
  // Browsers keep the upper 8 of the 16 bits, which are enough for colours.
  const values = await createImageBitmap(blob, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  const canvas = new OffscreenCanvas(values.width, values.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return null;
  context.drawImage(values, 0, 0);
  values.close();
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = PALETTE[pixels[i] & 255];
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Draw a map's colours over a picture, which becomes grey: its own colours would be taken for the map's. @param {CanvasRenderingContext2D} context @param {CanvasImageSource} colors */
export function drawValues(context, colors) {
  const { width, height } = context.canvas;
  context.save();
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  context.restore();
  context.drawImage(colors, 0, 0, width, height);
}

/** Create the scale of a map's colours, for the legend. @param {Dense} dense */
export function colorScale({ quantity, unit, minimum, maximum }) {
  const bar = h("span", { class: "color-scale" });
  bar.style.background = `linear-gradient(to right, ${ANCHORS.map((color) => `rgb(${color.join(" ")})`).join(", ")})`;
  return h("span", { class: "legend-item" }, h("b", {}, unit ? `${quantity} (${unit})` : quantity), short(minimum), bar, short(maximum));
}

/** @param {number} value */
function short(value) {
  return String(Number(value.toPrecision(DIGITS)));
}
