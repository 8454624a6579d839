/** The view of the server's models. */

import { h } from "./dom.js";
import { client, poll, sentence } from "./api.js";

/** @typedef {import("./vendor/messages.js").Model} Model */

/** @param {AbortSignal} signal */
export function modelsView(signal) {
  const list = h("div", { class: "models" }, h("p", { class: "muted" }, "Loading"));
  let shown = "";
  void poll(
    async (inner) => {
      const models = await client.models({ signal: inner });
      if (JSON.stringify(models) === shown) return;
      shown = JSON.stringify(models);
      list.replaceChildren(...models.map(card));
    },
    3,
    signal,
  );
  return h("div", {}, h("div", { class: "head" }, h("h1", {}, "Models")), list);
}

/** The badge's style by the model's state. */
const BADGES = { ready: "good", loading: "warn", failed: "bad", draining: "warn", unloaded: "" };

/** @param {Model} model */
function card(model) {
  const devices = model.devices.length > 1 ? model.devices.join(", ") : model.device;
  const older = model.draining ? ` (${model.draining} on an older version)` : "";
  /** @type {Record<string, string | null | false>} */
  const facts = {
    Task: model.task,
    "Key interval": model.key_interval > 0 && `${model.key_interval} frames`,
    Runs: model.backend && `${model.backend} ${model.precision}, ${devices}`,
    Motion: model.motion === "none" ? "none: results are copied" : model.motion,
    Streams: model.streams != null && `${model.streams}${older}`,
  };
  const rows = Object.entries(facts).filter(([, value]) => value);
  return h(
    "section",
    { class: "card padded model" },
    h(
      "div",
      { class: "head-title" },
      h("h2", {}, model.name),
      h("span", { class: "muted small number" }, model.version),
      h("span", { class: `badge ${BADGES[model.state]}` }, model.state),
    ),
    model.reason && h("p", { class: "notice bad flush" }, sentence(model.reason)),
    h("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    model.classes.length > 0 &&
      h("ul", { class: "classes", "aria-label": "Classes" }, ...model.classes.slice(model.background ? 1 : 0).map((one) => h("li", {}, swatch(one.color), one.name))),
  );
}

/** Create a square of a class's colour. @param {[number, number, number]} color RGB */
export function swatch(color) {
  const element = h("span", { class: "swatch" });
  element.style.background = `rgb(${color.join(" ")})`;
  return element;
}
