/** The controls of a video that plays with its results. */

import { h, icon, setText } from "./dom.js";
import { clock } from "./format.js";

/** @typedef {import("./player.js").Player} Player */

/** The play button, the position slider and the time. */
export class PlaybackControls {
  /** @type {Player | null} */ #player = null;
  #playButton = h("button", { type: "button", class: "icon-button", "aria-label": "Play", onclick: () => this.#player?.toggle() }, icon("play"));
  #seek = h("input", { type: "range", min: 0, max: 0, step: 0.01, value: 0, "aria-label": "Position" });
  #time = h("span", { class: "muted small number" });
  element = h("div", { class: "play", hidden: true }, this.#playButton, this.#seek, this.#time);

  constructor() {
    this.#seek.addEventListener("input", () => this.#player?.seek(this.#seek.valueAsNumber));
  }

  /** @param {Player | null} player @param {AbortSignal} signal */
  use(player, signal) {
    this.#player = player;
    this.element.hidden = !player;
    player?.addEventListener("change", () => this.#show(player), { signal });
  }

  /** @param {Player} player */
  #show(player) {
    const [action, symbol] = player.playing ? ["Pause", "pause"] : ["Play", "play"];
    if (this.#playButton.getAttribute("aria-label") !== action) {
      this.#playButton.setAttribute("aria-label", action);
      this.#playButton.replaceChildren(icon(symbol));
    }
    this.#seek.max = String(player.duration);
    this.#seek.value = String(player.time);
    this.#seek.setAttribute("aria-valuetext", `${clock(player.time)} of ${clock(player.duration)}`);
    setText(this.#time, `${clock(player.time)} / ${clock(player.duration)}${player.waiting ? " · waiting for results" : ""}`);
  }
}
