/** The newest frames as bars: key frames in full height, those between as high as their key frame is old. */

import { h, setText } from "./dom.js";
import { color, theme } from "./theme.js";

/** @typedef {import("./vendor/messages.js").Answer} Answer */

const BAR = 4; // pixels a frame takes, the gap included
const KEPT = 600; // frames

/** A strip of frames. */
export class Timeline {
  /** @type {Answer[]} */ #frames = [];
  #canvas = h("canvas", { class: "timeline", role: "img", "aria-label": "No frames yet" });
  #now = h("span", { class: "muted small number" });
  #dirty = true;
  #described = 0;
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
        item("--key", "key frame"),
        item("--accent", "propagated, by age"),
        item("--bad", "dropped or failed"),
        this.#now,
      ),
    ),
    this.#canvas,
  );

  /** @param {AbortSignal} signal */
  constructor(signal) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    let last = 0;
    const step = (/** @type {number} */ time) => {
      if (signal.aborted) return;
      if (this.#dirty && time - last >= (calm.matches ? 1000 : 80)) {
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
    this.#canvas.addEventListener("pointermove", (event) => this.#point(event.offsetX));
  }

  /** @param {Answer} answer */
  push(answer) {
    this.#frames.push(answer);
    if (this.#frames.length > 2 * KEPT) this.#frames.splice(0, KEPT);
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
    const dense = devicePixelRatio;
    this.#canvas.width = Math.round(clientWidth * dense);
    this.#canvas.height = Math.round(clientHeight * dense);
    const pen = this.#canvas.getContext("2d");
    if (!pen) return;
    pen.scale(dense, dense);
    const shown = this.#frames.slice(-Math.floor(clientWidth / BAR));
    const oldest = Math.max(9, ...shown.map((one) => (one.type === "result" ? one.key_age : 0)));
    pen.fillStyle = color("--line");
    pen.fillRect(0, clientHeight - 1, clientWidth, 1);
    shown.forEach((one, i) => {
      const x = clientWidth - (shown.length - i) * BAR;
      if (one.type !== "result") {
        pen.fillStyle = color("--bad");
        pen.fillRect(x, clientHeight - 5, BAR - 1, 4);
      } else if (one.kind === "key") {
        pen.fillStyle = color("--key");
        pen.fillRect(x, 0, BAR - 1, clientHeight - 1);
      } else {
        const height = 3 + ((clientHeight - 16) * one.key_age) / oldest;
        pen.fillStyle = color("--accent");
        pen.globalAlpha = 0.35 + (0.45 * one.key_age) / oldest;
        pen.fillRect(x, clientHeight - 1 - height, BAR - 1, height);
        pen.globalAlpha = 1;
      }
    });
    this.#describe(shown);
  }

  /** @param {Answer[]} shown */
  #describe(shown) {
    const newest = shown.at(-1);
    if (newest?.type === "result") {
      const age = newest.kind === "key" ? "key frame" : `age ${newest.key_age}`;
      setText(this.#now, `frame ${newest.frame} · ${age}`);
    }
    if (performance.now() - this.#described < 5000) return; // not at every frame: it would be read out again and again
    this.#described = performance.now();
    const keys = shown.filter((one) => one.type === "result" && one.kind === "key").length;
    const lost = shown.filter((one) => one.type !== "result").length;
    this.#canvas.setAttribute("aria-label", `The last ${shown.length} frames: ${keys} key frames, ${lost} dropped or failed`);
  }

  /** @param {number} x */
  #point(x) {
    const one = this.#frames.at(-1 - Math.floor((this.#canvas.clientWidth - x) / BAR));
    let said = "";
    if (one?.type === "result") {
      const kind = one.kind === "key" ? `key frame (${one.reason})` : `propagated, key frame ${one.key_age} frames ago`;
      said = `Frame ${one.frame}: ${kind}`;
    } else if (one) {
      said = `Frame ${one.frame}: ${one.type === "dropped" ? `dropped (${one.reason})` : one.problem.detail}`;
    }
    if (this.#canvas.title !== said) this.#canvas.title = said;
  }
}

/** A name with its colour. @param {string} variable @param {string} text */
export function item(variable, text) {
  const line = h("span", { class: "swatch line" });
  line.style.background = `var(${variable})`;
  return h("span", { class: "legend-item" }, line, text);
}
