/** The button that lets the server read its site file again, and the report of what changed. */

import { client, describeError, request } from "./api.js";
import { h, icon } from "./dom.js";

/** @typedef {import("./vendor/messages.js").Changes} Changes */
/** @typedef {import("./vendor/messages.js").Reloaded} Reloaded */

/** Create the button, and the element in which it reports. */
export function reloadButton() {
  const report = h("div", { role: "status" });
  const button = h("button", { type: "button", title: "Read the site file and the API keys again" }, icon("reload"), "Reload the site file");
  button.addEventListener("click", async () => {
    button.disabled = true;
    report.replaceChildren();
    try {
      const reloaded = await request(() => client.reload());
      const failed = Object.entries(reloaded.failed).map(([name, why]) => h("p", { class: "notice bad" }, `${name} couldn't be started: ${why}.`));
      report.replaceChildren(h("p", { class: "notice good" }, summary(reloaded)), ...failed);
    } catch (error) {
      report.replaceChildren(h("p", { class: "notice bad" }, describeError(error)));
    } finally {
      button.disabled = false;
    }
  });
  return { button, report };
}

/** Say what a reload has changed. @param {Reloaded} reloaded */
function summary({ streams, sinks, keys }) {
  const parts = [...changes("Camera", streams), ...changes("Sink", sinks), ...changes("API key", keys)];
  return `The server has read its files again. ${parts.length ? `${parts.join(". ")}.` : "Nothing has changed."}`;
}

/** @param {string} what @param {Changes} changes */
function changes(what, { added, changed, removed }) {
  const say = (/** @type {string[]} */ names, /** @type {string} */ how) =>
    names.length ? [`${names.length === 1 ? what : `${what}s`} ${how}: ${names.join(", ")}`] : [];
  return [...say(added, "added"), ...say(changed, "changed"), ...say(removed, "removed")];
}
