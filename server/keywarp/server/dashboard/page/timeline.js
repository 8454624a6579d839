/** A timeline of the newest frames as bars: key frames at full height, propagated frames as high as their key age. */

import { h, setText } from "./dom.js";
import { percent, seconds } from "./format.js";
import { color, theme } from "./theme.js";

/** @typedef {import("./vendor/messages.js").FrameResponse} FrameResponse */
/** @typedef {import("./vendor/messages.js").Result} Result */

const BAR_WIDTH = 4; // pixels per frame, including a gap of one
const MAX_FRAMES = 600;

/** A canvas with one bar per frame. */
export class Timeline {
  /** @type {FrameResponse[]} */ #frames = [];
  #canvas = h("canvas", { class: "timeline", role: "img", "aria-label": "No frames yet" });
  #newest = h("span", { class: "muted small number" });
  #dirty = true; // whether it must be painted
  #labelTime = 0; // milliseconds
  element = h(
    "figure",
    {},
    h(
      "figcaption",
      { class: "chart-head" },
      h("h2", {}, "Key frames"),
      h(
        "span",
        { class: "legend" },
        legendItem("--key", "key frame"),
        legendItem("--accent", "propagated, by age"),
        legendItem("--bad", "dropped or failed"),
        this.#newest,
      ),
    ),
    this.#canvas,
  );

  /** @param {AbortSignal} signal */
  constructor(signal) {
    const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
    let last = 0;
    const step = (/** @type {number} */ time) => {
      if (signal.aborted) return;
      if (this.#dirty && time - last >= (reducedMotion.matches ? 1000 : 80)) {
        last = time;
        this.#paint();
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
    theme.addEventListener("change", () => (this.#dirty = true), { signal });
    const resized = new ResizeObserver(() => (this.#dirty = true));
    resized.observe(this.#canvas);
    signal.addEventListener("abort", () => resized.disconnect());
    this.#canvas.addEventListener("pointermove", (event) => this.#showTooltip(event.offsetX));
  }

  /** Add a frame. @param {FrameResponse} response */
  push(response) {
    this.#frames.push(response);
    if (this.#frames.length > 2 * MAX_FRAMES) this.#frames.splice(0, MAX_FRAMES);
    this.#dirty = true;
  }

  clear() {
    this.#frames = [];
    this.#dirty = true;
  }

  #paint() {
    const { clientWidth, clientHeight } = this.#canvas;
    if (!clientWidth) return;
    this.#dirty = false;
    const density = devicePixelRatio;
    this.#canvas.width = Math.round(clientWidth * density);
    this.#canvas.height = Math.round(clientHeight * density);
    const context = this.#canvas.getContext("2d");
    if (!context) return;
    context.scale(density, density);
    const shown = this.#frames.slice(-Math.floor(clientWidth / BAR_WIDTH));
    const maxAge = Math.max(9, ...shown.map((one) => (one.type === "result" ? one.key_age : 0)));
    context.fillStyle = color("--line");
    context.fillRect(0, clientHeight - 1, clientWidth, 1);
    shown.forEach((one, i) => {
      const x = clientWidth - (shown.length - i) * BAR_WIDTH;
      if (one.type !== "result") {
        context.fillStyle = color("--bad");
        context.fillRect(x, clientHeight - 5, BAR_WIDTH - 1, 4);
      } else if (one.kind === "key") {
        context.fillStyle = color("--key");
        context.fillRect(x, 0, BAR_WIDTH - 1, clientHeight - 1);
      } else {
        const height = 3 + ((clientHeight - 16) * one.key_age) / maxAge;
        context.fillStyle = color("--accent");
        context.globalAlpha = 0.35 + (0.45 * one.key_age) / maxAge;
        context.fillRect(x, clientHeight - 1 - height, BAR_WIDTH - 1, height);
        context.globalAlpha = 1;
      }
    });
    this.#updateTexts(shown);
  }

  /** @param {FrameResponse[]} shown */
  #updateTexts(shown) {
    const newest = shown.at(-1);
    if (newest?.type === "result") {
      const age = newest.kind === "key" ? "key frame" : `age ${newest.key_age}`;
      setText(this.#newest, `frame ${newest.frame} · ${age}`);
    }
    if (performance.now() - this.#labelTime < 5000) return; // Screen readers would read out every change.
    this.#labelTime = performance.now();
    const keys = shown.filter((one) => one.type === "result" && one.kind === "key").length;
    const lost = shown.filter((one) => one.type !== "result").length;
    this.#canvas.setAttribute("aria-label", `The last ${shown.length} frames: ${keys} key frames, ${lost} dropped or failed`);
  }

  /** Describe the frame under the pointer. @param {number} x pixels from the left */
  #showTooltip(x) {
    const one = this.#frames.at(-1 - Math.floor((this.#canvas.clientWidth - x) / BAR_WIDTH));
    let text = "";
    if (one?.type === "result") {
      const kind = one.kind === "key" ? `key frame (${one.reason})` : `propagated, key frame ${one.key_age} frames${ago(one)} ago${reliability(one)}`;
      text = `Frame ${one.frame}: ${kind}`;
    } else if (one) {
      text = `Frame ${one.frame}: ${one.type === "dropped" ? `dropped (${one.reason})` : one.problem.detail}`;
    }
    if (this.#canvas.title !== text) this.#canvas.title = text;
  }
}

/** Describe a key age in seconds. @param {Result} result */
const ago = ({ key_age_seconds: age }) => (age === undefined ? "" : ` (${seconds(age)})`);

/** Describe a propagated result's reliability. @param {Result} result */
const reliability = ({ reliability: share }) => (share === undefined ? "" : `, reliability ${percent(share)} %`);

/** Create a legend's entry. @param {string} variable the colour's CSS variable @param {string} text */
export function legendItem(variable, text) {
  const line = h("span", { class: "swatch line" });
  line.style.background = `var(${variable})`;
  return h("span", { class: "legend-item" }, line, text);
}
