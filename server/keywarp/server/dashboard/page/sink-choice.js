/** The choice among the server's sinks, which its site file names. */

import { client, describeError, request } from "./api.js";
import { h } from "./dom.js";

/** @typedef {import("./vendor/messages.js").Sink} Sink */

/** A check box for each sink. */
export class SinkChoice {
  #id;
  #fits;
  /** @type {Set<string>} */ #chosen;
  #boxes = h("div", { class: "choices" }, h("p", { class: "hint" }, "…"));
  element;

  /**
   * @param {string} id
   * @param {string} label
   * @param {(sink: Sink) => boolean} fits whether a sink can be chosen
   * @param {string[]} chosen the names to begin with, which stay in the list even if there is no such sink
   */
  constructor(id, label, fits, chosen) {
    this.#id = id;
    this.#fits = fits;
    this.#chosen = new Set(chosen);
    this.element = h("fieldset", { class: "sinks" }, h("legend", {}, label), this.#boxes);
  }

  /** The names of the chosen sinks. */
  get chosen() {
    return [...this.#chosen];
  }

  /** Show the server's sinks. */
  async load() {
    try {
      const sinks = (await request(() => client.sinks())).filter(this.#fits);
      const kinds = new Map(sinks.map(({ name, kind }) => [name, kind]));
      const names = [...new Set([...kinds.keys(), ...this.#chosen])];
      const hint = h("p", { class: "hint flush" }, "The server has none. Its site file names them.");
      this.#boxes.replaceChildren(...(names.length ? names.map((name) => this.#box(name, kinds.get(name) ?? "not there")) : [hint]));
    } catch (error) {
      this.#boxes.replaceChildren(h("p", { class: "hint flush" }, describeError(error)));
    }
  }

  /** @param {string} name @param {string} kind */
  #box(name, kind) {
    const box = h("input", { id: `${this.#id}-${name}`, type: "checkbox", checked: this.#chosen.has(name) });
    box.addEventListener("change", () => (box.checked ? this.#chosen.add(name) : this.#chosen.delete(name)));
    return h("div", { class: "check" }, box, h("label", { for: box.id }, `${name} (${kind})`));
  }
}
