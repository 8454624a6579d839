/** The fields of what a stream is asked to do: model, key frames, mode. */

import { h } from "./dom.js";
import { ask, client } from "./server.js";

/** @typedef {import("./vendor/messages.js").Model} Model */
/** @typedef {import("./vendor/messages.js").StreamOptions} StreamOptions */

/**
 * A field with its label.
 *
 * @param {string} label
 * @param {HTMLElement} control with an id
 * @param {string} [hint]
 */
export function field(label, control, hint) {
  const said = hint ? h("p", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (said) control.setAttribute("aria-describedby", said.id);
  return h("div", {}, h("label", { for: control.id }, label), control, said);
}

/**
 * @param {string} id
 * @param {Record<string, string>} choices by value
 */
export const select = (id, choices) =>
  h("select", { id }, ...Object.entries(choices).map(([value, text]) => h("option", { value }, text)));

/** The fields, and what was entered. */
export class Options {
  #model = select("option-model", {});
  #schedule = select("option-schedule", { "": "Default", fixed: "Fixed", adaptive: "Adaptive" });
  #interval = h("input", { id: "option-interval", type: "number", min: 1, max: 1000, inputmode: "numeric" });
  #mode;
  /** @type {Model[]} */ #models = [];

  /** @param {{mode: "latest" | "lossless" | null}} options null: it can't be chosen */
  constructor({ mode }) {
    this.#mode = mode && select("option-mode", { latest: "Newest wins", lossless: "Every frame" });
    if (this.#mode && mode) this.#mode.value = mode;
    this.elements = [
      field("Model", this.#model),
      field("Key frames", this.#schedule),
      field("Key interval", this.#interval),
      this.#mode && field("If the server is busy", this.#mode),
    ].filter((element) => element !== null);
    this.#model.addEventListener("change", () => this.#suggest());
  }

  /** Fill in the models. */
  async load() {
    this.#models = (await ask(() => client.models())).filter((model) => model.state === "ready");
    this.#model.replaceChildren(...this.#models.map((model) => h("option", { value: model.name }, model.name)));
    this.#suggest();
  }

  /** @returns {StreamOptions} */
  get values() {
    /** @type {any} */ const values = {};
    if (this.#model.value) values.model = this.#model.value;
    if (this.#schedule.value) values.schedule = this.#schedule.value;
    if (this.#interval.value) values.interval = this.#interval.valueAsNumber;
    if (this.#mode) values.mode = this.#mode.value;
    return values;
  }

  /** @param {boolean} disabled */
  set disabled(disabled) {
    for (const control of [this.#model, this.#schedule, this.#interval, this.#mode]) if (control) control.disabled = disabled;
  }

  #suggest() {
    const interval = this.#models.find((model) => model.name === this.#model.value)?.key_interval;
    this.#interval.placeholder = interval ? String(interval) : "";
  }
}
