/** The view of the models that the server has loaded. */

import { h } from "./dom.js";
import { client, poll } from "./server.js";

/** @typedef {import("./vendor/messages.js").Model} Model */

/** @param {AbortSignal} signal */
export function modelsView(signal) {
  const list = h("div", { class: "models" }, h("p", { class: "muted" }, "Loading"));
  let shown = "";
  void poll(
    async () => {
      const models = await client.models();
      if (JSON.stringify(models) === shown) return;
      shown = JSON.stringify(models);
      list.replaceChildren(...models.map(card));
    },
    10,
    signal,
  );
  return h("div", {}, h("div", { class: "head" }, h("h1", {}, "Models")), list);
}

/** @param {Model} model */
function card(model) {
  const facts = {
    Task: model.task,
    "Key interval": `${model.key_interval} frames`,
    Runs: `${model.backend} ${model.precision}, ${model.device}`,
    Motion: model.motion === "none" ? "none: results are copied" : model.motion,
  };
  return h(
    "section",
    { class: "card padded model" },
    h("div", { class: "head-title" }, h("h2", {}, model.name), h("span", { class: "muted small number" }, model.version)),
    h("dl", { class: "facts" }, ...Object.entries(facts).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
    h("ul", { class: "classes", "aria-label": "Classes" }, ...model.classes.slice(1).map((one) => h("li", {}, swatch(one.color), one.name))),
  );
}

/** @param {[number, number, number]} color RGB */
export function swatch(color) {
  const element = h("span", { class: "swatch" });
  element.style.background = `rgb(${color.join(" ")})`;
  return element;
}
