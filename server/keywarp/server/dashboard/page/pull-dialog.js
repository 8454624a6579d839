/** The dialog that starts a pulled stream. */

import { client, describeError, request } from "./api.js";
import { byId, h, showFailure } from "./dom.js";
import { SinkChoice } from "./sink-choice.js";
import { StreamOptionFields, field } from "./stream-options.js";

/** Open the dialog. */
export function openPullDialog() {
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
  const options = new StreamOptionFields({ mode: "latest" });
  const sinks = new SinkChoice("pull-sinks", "Results go to", () => true, []);
  const failure = h("p", { class: "notice bad flush", role: "alert" });
  const start = h("button", { class: "primary" }, "Start");
  const form = h(
    "form",
    {},
    h("h2", { id: "pull-title" }, "Pull a URL"),
    field("Address", source, "rtsp, rtmp, srt, udp, http or https: a camera, a file, HLS or MJPEG. The server's operator decides which hosts are allowed."),
    h("div", { class: "fields" }, field("Name (optional)", name), ...options.elements),
    sinks.element,
    failure,
    h("div", { class: "actions" }, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), start),
  );
  const dialog = h("dialog", { "aria-labelledby": "pull-title" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    start.disabled = true;
    failure.textContent = "";
    try {
      const streamRequest = { source: source.value, ...options.values, ...(sinks.chosen.length && { sinks: sinks.chosen }), ...(name.value && { id: name.value }) };
      const stream = await request(() => client.createStream(streamRequest));
      dialog.close();
      location.hash = `#/streams/${encodeURIComponent(stream.id)}`;
    } catch (error) {
      showFailure(failure, describeError(error));
    } finally {
      start.disabled = false;
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
  sinks.load();
  options.load().catch((error) => (failure.textContent = describeError(error)));
}
