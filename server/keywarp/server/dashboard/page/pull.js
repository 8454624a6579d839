/** The dialog that starts a stream which the server pulls by itself. */

import { byId, h } from "./dom.js";
import { Options, field } from "./options.js";
import { ask, client, inWords } from "./server.js";

/** Open it. */
export function openPull() {
  const source = h("input", {
    id: "pull-source",
    type: "url",
    required: true,
    placeholder: "rtsp://camera.local/stream1",
    spellcheck: "false",
    autocomplete: "off",
  });
  const name = h("input", {
    id: "pull-name",
    pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]{0,63}",
    title: "Letters, digits, dots, dashes and underscores",
    spellcheck: "false",
    autocomplete: "off",
    placeholder: "gate-1",
  });
  const options = new Options({ mode: "latest" });
  const failure = h("p", { class: "notice bad flush", role: "alert" });
  const start = h("button", { class: "primary" }, "Start");
  const form = h(
    "form",
    {},
    h("h2", { id: "pull-title" }, "Pull a URL"),
    field("Address", source, "rtsp, http or https: cameras, files, HLS, MJPEG. The server's operator decides which hosts are allowed."),
    h("div", { class: "fields" }, field("Name (optional)", name), ...options.elements),
    failure,
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), start),
  );
  const dialog = h("dialog", { "aria-labelledby": "pull-title" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    start.disabled = true;
    failure.textContent = "";
    try {
      const request = { source: source.value, ...options.values, ...(name.value && { id: name.value }) };
      const stream = await ask(() => client.createStream(request));
      dialog.close();
      location.hash = `#/streams/${encodeURIComponent(stream.id)}`;
    } catch (error) {
      failure.textContent = inWords(error);
    } finally {
      start.disabled = false;
    }
  });
  const leave = () => dialog.close(); // the browser's Back shows another page below it
  addEventListener("hashchange", leave);
  dialog.addEventListener("close", () => {
    removeEventListener("hashchange", leave);
    dialog.remove();
  });
  byId("dialogs").append(dialog);
  dialog.showModal();
  options.load().catch((error) => (failure.textContent = inWords(error)));
}
