/** The view of events, and the list of them that a stream's view shows, too. */

import { client, describeError, poll, request } from "./api.js";
import { h, icon, setText, toast } from "./dom.js";
import { duration, number, percent } from "./format.js";
import { ApiError } from "./vendor/keywarp.js";

/** @typedef {import("./vendor/messages.js").StreamEvent} StreamEvent */

const SHOWN = 50; // the newest events
const SECONDS = 2; // from one update to the next

/** @param {AbortSignal} signal */
export function eventsView(signal) {
  const list = new EventList(signal);
  const empty = h(
    "section",
    { class: "card padded" },
    h("h2", {}, "No events yet"),
    h("p", { class: "muted" }, "Rules say what to report: someone in a zone for ten seconds, or a car that crosses a line. They stand in the site file, or are set over the API."),
  );
  list.element.hidden = empty.hidden = true;
  void poll(
    async (inner) => {
      const events = await client.events({ limit: SHOWN, signal: inner });
      list.element.hidden = !events.length;
      empty.hidden = !list.element.hidden;
      list.show(events);
    },
    SECONDS,
    signal,
  );
  return h("div", {}, h("div", { class: "head" }, h("h1", {}, "Events")), list.element, empty);
}

/** Events with their snapshots, the newest first. Updates keep the elements, so that the focus stays where it is. */
export class EventList {
  /** @type {Map<string, EventItem>} */ #items = new Map(); // by the event's id
  #signal;
  element = h("ol", { class: "events", "aria-label": "Events" });

  /** @param {AbortSignal} signal frees the snapshots */
  constructor(signal) {
    this.#signal = signal;
  }

  /** @param {StreamEvent[]} events */
  show(events) {
    const ids = new Set(events.map(({ id }) => id));
    for (const [id, item] of this.#items) {
      if (ids.has(id)) continue;
      item.element.remove();
      this.#items.delete(id);
    }
    for (const event of [...events].reverse()) {
      let item = this.#items.get(event.id);
      if (!item) {
        item = new EventItem(event, this.#signal);
        this.#items.set(event.id, item);
        this.element.prepend(item.element);
      }
      item.show(event);
    }
  }
}

/** One event. */
class EventItem {
  #badge = h("span", { class: "badge" });
  #what = h("p", { class: "muted small" });
  element;

  /** @param {StreamEvent} event @param {AbortSignal} signal */
  constructor(event, signal) {
    const start = new Date(event.start);
    this.element = h(
      "li",
      { class: "card event" },
      event.snapshot ? snapshotOf(event, signal) : h("span", { class: "event-picture" }, icon("events")),
      h(
        "div",
        { class: "event-text" },
        h("div", { class: "head-title" }, h("h2", {}, event.rule), this.#badge),
        h("p", {}, h("a", { href: `#/streams/${encodeURIComponent(event.stream)}` }, event.camera)),
        h("p", { class: "small number" }, h("time", { datetime: event.start, title: `${event.start} (UTC)` }, start.toLocaleString("en", { dateStyle: "medium", timeStyle: "medium" }))),
        this.#what,
        event.clip ? h("button", { type: "button", class: "quiet small", onclick: () => saveClip(event) }, icon("download"), "Clip") : null,
      ),
    );
  }

  /** @param {StreamEvent} event */
  show(event) {
    const isOpen = event.state === "started";
    const lasted = event.end ? (Date.parse(event.end) - Date.parse(event.start)) / 1000 : 0;
    this.#badge.className = isOpen ? "badge warn" : "badge";
    setText(this.#badge, isOpen ? "Now" : event.line ? `To the ${event.direction}` : duration(lasted));
    setText(this.#what, describe(event));
  }
}

/** Download the clip of an event. @param {StreamEvent} event */
async function saveClip({ id, rule }) {
  try {
    const url = URL.createObjectURL(await request(() => client.clip(id)));
    h("a", { href: url, download: `${rule}-${id}.mp4` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    toast(error instanceof ApiError && error.status === 404 ? "The clip isn't complete yet, or is gone." : describeError(error));
  }
}

/** Say what was seen. @param {StreamEvent} event */
function describe({ classes, zone, line, objects = [], count = 0, confidence, area }) {
  const ids = objects.slice(0, 5).map((id) => `#${id}`);
  if (objects.length > ids.length) ids.push("…");
  const place = zone ? `in ${zone}` : line ? `across ${line}` : "";
  const most = count > 1 ? `at most ${number(count)} at a time` : "";
  const sure = confidence != null ? `${percent(confidence)} % sure` : area != null ? `${percent(area)} % of it` : "";
  return [`${classes.join(", ")} ${ids.join(" ")} ${place}`.replace(/ +/g, " ").trim(), most, sure].filter(Boolean).join(" · ");
}

/** Load the snapshot of an event, which opens in a tab of its own. @param {StreamEvent} event @param {AbortSignal} signal */
function snapshotOf(event, signal) {
  const image = h("img", { alt: `The picture when ${event.rule} started`, width: 160, height: 90, loading: "lazy" });
  const link = h("a", { class: "event-picture", target: "_blank", rel: "noopener", "aria-label": `Snapshot of ${event.rule}, ${event.camera}` }, image);
  client.snapshot(event.id, { signal }).then(
    (jpeg) => {
      if (signal.aborted) return;
      const url = URL.createObjectURL(jpeg);
      image.src = link.href = url;
      signal.addEventListener("abort", () => URL.revokeObjectURL(url));
    },
    () => link.replaceWith(h("span", { class: "event-picture" }, icon("events"))),
  );
  return link;
}
