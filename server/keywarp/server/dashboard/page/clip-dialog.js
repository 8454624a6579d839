/** The dialog that plays the clip of an event. */

import { client, describeError, request } from "./api.js";
import { byId, h, icon, toast } from "./dom.js";
import { ApiError } from "./vendor/keywarp.js";

/** @typedef {import("./vendor/messages.js").StreamEvent} StreamEvent */

/** Play the clip of an event, and offer it for download. @param {StreamEvent} event */
export async function showClip({ id, rule, camera }) {
  /** @type {string} */ let url;
  try {
    url = URL.createObjectURL(await request(() => client.clip(id)));
  } catch (error) {
    toast(error instanceof ApiError && error.status === 404 ? "The clip isn't complete yet, or is gone." : describeError(error));
    return;
  }
  const failure = h("p", { class: "notice flush", role: "status" });
  const video = h("video", { class: "clip", controls: true, autoplay: true, playsinline: true, src: url, "aria-label": `Clip of ${rule}` });
  video.muted = true;
  video.addEventListener("error", () => (failure.textContent = "The browser can't play this video, but it can be saved."));
  const dialog = h(
    "dialog",
    { class: "wide", "aria-labelledby": "clip-title" },
    h(
      "div",
      { class: "stack" },
      h("h2", { id: "clip-title" }, `${rule}, ${camera}`),
      video,
      failure,
      h(
        "div",
        { class: "actions" },
        h("a", { class: "button", href: url, download: `${rule}-${id}.mp4` }, icon("download"), "Save"),
        h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close"),
      ),
    ),
  );
  const leave = () => dialog.close(); // The browser's Back button shows another view below the dialog.
  addEventListener("hashchange", leave);
  dialog.addEventListener("close", () => {
    removeEventListener("hashchange", leave);
    dialog.remove();
    URL.revokeObjectURL(url);
  });
  byId("dialogs").append(dialog);
  dialog.showModal();
}
