/** Form fields for a stream's options: model, key schedule, key interval, greatest key age and mode. */

import { client, request } from "./api.js";
import { h } from "./dom.js";

/** @typedef {import("./vendor/messages.js").Model} Model */
/** @typedef {import("./vendor/messages.js").StreamOptions} StreamOptions */

/**
 * Create a form field: a control with its label.
 *
 * @param {string} label
 * @param {HTMLElement} control must have an id
 * @param {string} [hint]
 */
export function field(label, control, hint) {
  const text = hint ? h("p", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (text) control.setAttribute("aria-describedby", text.id);
  return h("div", {}, h("label", { for: control.id }, label), control, text);
}

/**
 * Create a drop-down list.
 *
 * @param {string} id
 * @param {Record<string, string>} choices texts by value
 */
export const select = (id, choices) =>
  h("select", { id }, ...Object.entries(choices).map(([value, text]) => h("option", { value }, text)));

/** The fields and the values entered. */
export class StreamOptionFields {
  #model = select("option-model", {});
  #schedule = select("option-schedule", { "": "Default", fixed: "Fixed", adaptive: "Adaptive" });
  #interval = h("input", { id: "option-interval", type: "number", min: 1, max: 1000, inputmode: "numeric" });
  #maxAge = h("input", { id: "option-max-age", type: "number", min: 0.1, max: 86400, step: "any", inputmode: "decimal", placeholder: "Default" });
  #maxFps = h("input", { id: "option-max-fps", type: "number", min: 0.1, max: 1000, step: "any", inputmode: "decimal", placeholder: "All" });
  #track = h("input", { id: "option-track", type: "checkbox" });
  #mode;
  /** @type {Model[]} */ #models = [];

  /** @param {{mode: "latest" | "lossless" | null}} options the initial mode, or null to offer no choice */
  constructor({ mode }) {
    this.#mode = mode && select("option-mode", { latest: "Skip frames", lossless: "Keep all frames" });
    if (this.#mode && mode) this.#mode.value = mode;
    this.elements = [
      field("Model", this.#model),
      field("Key frames", this.#schedule),
      field("Key interval", this.#interval),
      field("Greatest key age (s)", this.#maxAge),
      field("Most frames per second", this.#maxFps),
      this.#mode && field("If the server is busy", this.#mode),
      h("div", { class: "check" }, this.#track, h("label", { for: "option-track" }, "Follow objects")),
    ].filter((element) => element !== null);
    this.#model.addEventListener("change", () => this.#showDefaultInterval());
  }

  /** Load the list of models. */
  async load() {
    this.#models = (await request(() => client.models())).filter((model) => model.state === "ready");
    this.#model.replaceChildren(...this.#models.map((model) => h("option", { value: model.name }, model.name)));
    this.#showDefaultInterval();
  }

  /** The values entered. @returns {StreamOptions} */
  get values() {
    /** @type {any} */ const values = {};
    if (this.#model.value) values.model = this.#model.value;
    if (this.#schedule.value) values.schedule = this.#schedule.value;
    if (this.#interval.value) values.interval = this.#interval.valueAsNumber;
    if (this.#maxAge.value) values.max_age = this.#maxAge.valueAsNumber;
    if (this.#maxFps.value) values.max_fps = this.#maxFps.valueAsNumber;
    if (this.#track.checked && this.#tracks) values.track = true;
    if (this.#mode) values.mode = this.#mode.value;
    return values;
  }

  /** @param {boolean} disabled */
  set disabled(disabled) {
    for (const control of [this.#model, this.#schedule, this.#interval, this.#maxAge, this.#maxFps, this.#track, this.#mode]) if (control) control.disabled = disabled;
  }

  /** Whether the chosen model's objects can be followed. */
  get #tracks() {
    return this.#models.find((model) => model.name === this.#model.value)?.task === "detection";
  }

  #showDefaultInterval() {
    const interval = this.#models.find((model) => model.name === this.#model.value)?.key_interval;
    this.#interval.placeholder = interval ? String(interval) : "";
    if (this.#track.parentElement) this.#track.parentElement.hidden = !this.#tracks;
  }
}
