/** The dialog that changes options of a running stream. */

import { client, describeError, request } from "./api.js";
import { byId, h, showFailure, toast } from "./dom.js";
import { field, select } from "./stream-options.js";

/** @typedef {import("./vendor/messages.js").StreamInfo} StreamInfo */

/** @param {[number, number][][]} regions */
const toText = (regions) => regions.map((corners) => corners.map((corner) => corner.join(",")).join(" ")).join("\n");

/** @param {string} text @returns {number[][][]} what it says; the server refuses what is no region */
const toRegions = (text) =>
  text
    .split("\n")
    .filter((line) => line.trim())
    .map((line) => line.trim().split(/\s+/).map((corner) => corner.split(",").map(Number)));

/** How long changes of a camera last. @param {StreamInfo} stream */
function lasting({ configured, kept }) {
  if (configured === "site") return "This camera is one of the site file: after a restart, or a change of the file, it is as the file says.";
  return kept ? "The server keeps the change after a restart." : "The server keeps no cameras: after a restart, this one is gone (serve --data).";
}

/** Open the dialog. @param {StreamInfo} stream */
export function openChangeDialog(stream) {
  const number = (/** @type {string} */ id, /** @type {number | null} */ value, /** @type {object} */ limits) =>
    h("input", { id, type: "number", value, ...limits });
  const schedule = select("change-schedule", { fixed: "Fixed", adaptive: "Adaptive" });
  const interval = number("change-interval", stream.interval, { min: 1, max: 1000, required: true, inputmode: "numeric" });
  const longest = number("change-max-interval", stream.max_interval, { min: 1, max: 1000, placeholder: "Default", inputmode: "numeric" });
  const age = number("change-max-age", stream.max_age, { min: 0.1, max: 86400, step: "any", placeholder: "Default", inputmode: "decimal" });
  const most = number("change-max-fps", stream.max_fps ?? null, { min: 0.1, max: 1000, step: "any", placeholder: "All", inputmode: "decimal" });
  const hidden = h("textarea", { id: "change-hidden", rows: 2, spellcheck: "false", autocomplete: "off", placeholder: "0,0 1,0 1,0.2 0,0.2" });
  hidden.value = toText(stream.hidden ?? []);
  const mode = select("change-mode", { latest: "Skip frames", lossless: "Keep all frames" });
  const track = h("input", { id: "change-track", type: "checkbox", checked: stream.track });
  const source = h("input", { id: "change-source", type: "url", placeholder: stream.source, spellcheck: "false", autocomplete: "off" });
  schedule.value = stream.schedule;
  mode.value = stream.mode;
  const byRules = Boolean(stream.track && stream.rules?.length);
  track.disabled = byRules;
  const tracking = h("div", { class: "check", hidden: true }, track, h("label", { for: track.id }, byRules ? "Follow objects (the rules need it)" : "Follow objects"));
  const longestField = field("At most", longest, "Frames from one key frame to the next");
  const showLongest = () => (longestField.hidden = schedule.value !== "adaptive");
  schedule.addEventListener("change", showLongest);
  showLongest();
  const failure = h("p", { class: "notice bad flush", role: "alert" });
  const save = h("button", { class: "primary" }, "Change");

  /** The options that the user has changed. An empty field is the server's default. */
  const changes = () => {
    /** @type {Record<string, unknown>} */ const given = {
      schedule: schedule.value,
      interval: interval.valueAsNumber,
      max_interval: schedule.value === "adaptive" && longest.value ? longest.valueAsNumber : null,
      max_age: age.value ? age.valueAsNumber : null,
      max_fps: most.value ? most.valueAsNumber : null,
      mode: mode.value,
    };
    /** @type {Record<string, unknown>} */ const now = { ...stream };
    const changed = Object.fromEntries(Object.entries(given).filter(([name, value]) => value !== now[name]));
    if (track.checked !== Boolean(stream.track)) changed.track = track.checked;
    if (hidden.value.trim() !== toText(stream.hidden ?? [])) changed.hidden = toRegions(hidden.value);
    if (source.value) changed.source = source.value;
    return changed;
  };

  const form = h(
    "form",
    {},
    h("h2", { id: "change-title" }, `Change ${stream.id}`),
    h(
      "div",
      { class: "fields" },
      field("Key frames", schedule),
      field("Key interval", interval),
      longestField,
      field("Greatest key age (s)", age),
      field("Most frames per second", most),
      field("If the server is busy", mode, stream.source ? "Another choice connects again" : "From the next connection on"),
      tracking,
    ),
    field("Hidden regions", hidden, "One per line: its corners x,y in shares of the width and height. They are black to everything but clips."),
    stream.source && field("Another address", source, "Leave it empty to keep the one above, with its user and password. The server connects to another one at once."),
    stream.source && h("p", { class: "hint" }, lasting(stream)),
    failure,
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), save),
  );
  const dialog = h("dialog", { "aria-labelledby": "change-title" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    save.disabled = true;
    failure.textContent = "";
    try {
      const wanted = changes();
      if (Object.keys(wanted).length) await request(() => client.change(stream.id, wanted));
      dialog.close();
      toast(Object.keys(wanted).length ? `${stream.id} was changed` : "Nothing was changed");
    } catch (error) {
      showFailure(failure, describeError(error));
    } finally {
      save.disabled = false;
    }
  });
  const leave = () => dialog.close(); // The browser's Back button shows another view below the dialog.
  addEventListener("hashchange", leave);
  dialog.addEventListener("close", () => {
    removeEventListener("hashchange", leave);
    dialog.remove();
  });
  byId("dialogs").append(dialog);
  dialog.showModal();
  const findTask = async () => {
    const model = (await client.models()).find(({ name }) => name === stream.model);
    tracking.hidden = model?.task !== "detection";
  };
  findTask().catch((error) => (failure.textContent = describeError(error)));
}
