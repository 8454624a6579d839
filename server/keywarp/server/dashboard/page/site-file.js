/** Zones, lines and rules as the site file has them, to be copied into it. */

import { byId, h, icon } from "./dom.js";

/** @typedef {import("./vendor/messages.js").Rules} Rules */

/** What a rule needn't say. @type {Record<string, unknown>} */
const DEFAULTS = { direction: "both", min_confidence: 0.5, min_area: 0, min_seconds: 0, min_count: 1, cooldown: 0 };

/** Write the rules of a stream as TOML. @param {string} id @param {Rules} rules @returns {string} */
function toToml(id, { zones = {}, lines = {}, rules = {}, ...settings }) {
  const stream = `streams.${key(id)}`;
  const tables = [
    ...table(stream, settings),
    ...table(`${stream}.zones`, zones),
    ...table(`${stream}.lines`, lines),
    ...Object.entries(rules).flatMap(([name, rule]) => table(`${stream}.rules.${key(name)}`, rule, { always: true })),
  ];
  return `${tables.join("\n\n")}\n`;
}

/**
 * Write a table, unless it is empty.
 *
 * @param {string} name
 * @param {object} values
 * @param {{always?: boolean}} options `always`: even if it is empty
 */
function table(name, values, { always = false } = {}) {
  const lines = Object.entries(values)
    .filter(([one, value]) => value != null && value !== DEFAULTS[one] && !(Array.isArray(value) && !value.length))
    .map(([one, value]) => `${key(one)} = ${JSON.stringify(value)}`); // JSON's strings, numbers and arrays are TOML's, too.
  return lines.length || always ? [[`[${name}]`, ...lines].join("\n")] : [];
}

/** @param {string} name */
const key = (name) => (/^[\w-]+$/.test(name) ? name : JSON.stringify(name));

/** Open a dialog that shows the rules of a stream for the site file. @param {string} id @param {Rules} rules */
export function showSiteFile(id, rules) {
  const text = toToml(id, rules);
  const area = h("textarea", { id: "site-file", class: "mono", readonly: true, rows: Math.min(18, text.split("\n").length), spellcheck: "false" });
  area.value = text;
  const said = h("span", { class: "muted small", role: "status" });
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.textContent = "Copied";
    } catch {
      area.select(); // Pages over plain http have no clipboard, and users can forbid it.
      said.textContent = "The browser doesn't let this page copy, but the text is selected: copy it yourself";
    }
  };
  const dialog = h(
    "dialog",
    { class: "wide", "aria-labelledby": "site-file-title" },
    h(
      "div",
      { class: "stack" },
      h("h2", { id: "site-file-title" }, "For the site file"),
      h("label", { for: area.id, class: "flush" }, "The camera's source and other options belong into the first table, too."),
      area,
      h(
        "div",
        { class: "actions" },
        said,
        h("button", { type: "button", onclick: copy }, icon("copy"), "Copy"),
        h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close"),
      ),
    ),
  );
  const leave = () => dialog.close(); // The browser's Back button shows another view below the dialog.
  addEventListener("hashchange", leave);
  dialog.addEventListener("close", () => {
    removeEventListener("hashchange", leave);
    dialog.remove();
  });
  byId("dialogs").append(dialog);
  dialog.showModal();
}
