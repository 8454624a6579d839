/** The page's entry point: shows the view that the address names. */

import { client, describeError, request } from "./api.js";
import { changeKey } from "./api-key.js";
import { cameraView } from "./camera.js";
import { byId, h } from "./dom.js";
import { eventsView } from "./events.js";
import { modelsView } from "./models.js";
import { rulesView } from "./rules.js";
import { streamView } from "./stream.js";
import { streamsView } from "./streams.js";
import { startTheme } from "./theme.js";
import { videoView } from "./video.js";
import { wallView } from "./wall.js";

/**
 * A view builds its element and updates it until the signal aborts, which happens when another view is shown.
 *
 * @typedef {(signal: AbortSignal, id: string) => HTMLElement} View
 */

/** @type {Record<string, {title: string, view: View}>} */
const VIEWS = {
  streams: { title: "Streams", view: streamsView },
  stream: { title: "Stream", view: streamView },
  rules: { title: "Zones and rules", view: rulesView },
  wall: { title: "Wall", view: wallView },
  events: { title: "Events", view: eventsView },
  camera: { title: "Camera", view: cameraView },
  video: { title: "Video", view: videoView },
  models: { title: "Models", view: modelsView },
};

const main = byId("main");
let current = new AbortController(); // of the view that is shown
let first = true;

function route() {
  const [, name = "streams", id = "", part = ""] = location.hash.split("/");
  const ofStream = part === "rules" ? "rules" : "stream";
  const chosen = name === "streams" && id ? ofStream : Object.hasOwn(VIEWS, name) ? name : "streams";
  current.abort();
  current = new AbortController();
  const { title, view } = VIEWS[chosen];
  document.title = `${title} · Keywarp`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("data-view") === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    const decoded = decodeURIComponent(id); // It throws if the id isn't percent-encoded.
    if (decoded && name === "streams") document.title = `${decoded} · Keywarp`;
    main.replaceChildren(view(current.signal, decoded));
  } catch (error) {
    main.replaceChildren(h("p", { class: "notice bad", role: "alert" }, describeError(error)));
    throw error;
  }
  if (!first) {
    scrollTo(0, 0);
    const heading = main.querySelector("h1");
    heading?.setAttribute("tabindex", "-1");
    heading?.focus();
  }
  first = false;
}

byId("skip").addEventListener("click", () => main.focus());
byId("key").addEventListener("click", async () => {
  client.apiKey = await changeKey();
  await request(() => client.models()).catch(() => {});
  route();
});
startTheme();
addEventListener("hashchange", route);
route();
