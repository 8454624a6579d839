/** The page: which view is shown, by the address. */

import { cameraView } from "./camera.js";
import { byId, h } from "./dom.js";
import { changeKey } from "./key.js";
import { modelsView } from "./models.js";
import { ask, client, inWords } from "./server.js";
import { streamView } from "./stream.js";
import { streamsView } from "./streams.js";
import { startTheme } from "./theme.js";
import { videoView } from "./video.js";

/**
 * A view: makes its element and works until the signal says that it isn't shown any more.
 *
 * @typedef {(signal: AbortSignal, id: string) => HTMLElement} View
 */

/** @type {Record<string, {title: string, view: View}>} */
const VIEWS = {
  streams: { title: "Streams", view: streamsView },
  stream: { title: "Stream", view: streamView },
  camera: { title: "Camera", view: cameraView },
  video: { title: "Video", view: videoView },
  models: { title: "Models", view: modelsView },
};

const main = byId("main");
let shown = new AbortController();
let first = true;

function route() {
  const [, name = "streams", id = ""] = location.hash.split("/");
  const chosen = name === "streams" && id ? "stream" : Object.hasOwn(VIEWS, name) ? name : "streams";
  shown.abort();
  shown = new AbortController();
  const { title, view } = VIEWS[chosen];
  document.title = `${title} · Keywarp`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("data-view") === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  try {
    const decoded = decodeURIComponent(id); // throws where it isn't encoded
    if (decoded) document.title = `${decoded} · Keywarp`;
    main.replaceChildren(view(shown.signal, decoded));
  } catch (error) {
    main.replaceChildren(h("p", { class: "notice bad", role: "alert" }, inWords(error)));
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
  await ask(() => client.models()).catch(() => {});
  route();
});
startTheme();
addEventListener("hashchange", route);
route();
