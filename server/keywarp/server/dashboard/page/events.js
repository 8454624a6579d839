/** The view of events, and the list of them that a stream's view shows, too. */

import { client, poll } from "./api.js";
import { showClip } from "./clip-dialog.js";
import { h, icon, setText } from "./dom.js";
import { duration, number, percent } from "./format.js";
import { field, select } from "./stream-options.js";

/** @typedef {import("./vendor/messages.js").StreamInfo} StreamInfo */
/** @typedef {import("./vendor/messages.js").StreamEvent} StreamEvent */

const SHOWN = 50; // events at first, and by how many there are more
const MOST = 1000; // that the server lists
const SECONDS = 2; // from one update to the next
const MARGIN = "300px"; // around the screen in which snapshots are loaded

/** Names of periods that end now. @type {Record<string, string>} */
const PERIODS = { "": "Any time", "1 h": "The last hour", "24 h": "The last 24 hours", "168 h": "The last 7 days" };

/** @param {AbortSignal} signal */
export function eventsView(signal) {
  const list = new EventList(signal);
  const filter = new EventFilter();
  const status = h("p", { class: "muted small", role: "status" });
  const more = h("button", { type: "button", hidden: true }, "Show more");
  const empty = h(
    "section",
    { class: "card padded" },
    h("h2", {}, "No events yet"),
    h("p", { class: "muted" }, "Rules say what to report: someone in a zone for ten seconds, or a car that crosses a line. Open a stream, and choose “Zones and rules”."),
  );
  let limit = SHOWN;
  list.element.hidden = empty.hidden = true;
  let refresh = new AbortController(); // aborts the wait for the next update
  const update = async (/** @type {AbortSignal} */ inner) => {
    const [events, streams] = await Promise.all([client.events({ ...filter.values, limit, signal: inner }), client.streams({ signal: inner })]);
    if (inner.aborted) return;
    filter.offer(streams, events);
    list.element.hidden = !events.length;
    empty.hidden = Boolean(events.length || filter.isSet);
    more.hidden = events.length < limit || limit >= MOST;
    setText(status, events.length ? `${more.hidden ? "" : "The newest "}${number(events.length)} ${events.length === 1 ? "event" : "events"}` : filter.isSet ? "No event fits the filter." : "");
    list.show(events);
  };
  const start = () => {
    refresh.abort();
    refresh = new AbortController();
    void poll(update, SECONDS, AbortSignal.any([signal, refresh.signal]));
  };
  filter.element.addEventListener("change", () => {
    limit = SHOWN;
    start();
  });
  more.addEventListener("click", () => {
    limit = Math.min(MOST, limit + SHOWN);
    start();
  });
  start();
  return h(
    "div",
    { class: "stack" },
    h("div", { class: "head flat" }, h("h1", {}, "Events"), status),
    filter.element,
    list.element,
    h("div", { class: "actions" }, more),
    empty,
  );
}

/** Drop-down lists that choose which events are listed. */
class EventFilter {
  /** @type {Map<string, string>} */ #cameras = new Map(); // names by id
  /** @type {Set<string>} */ #rules = new Set();
  #camera = select("event-camera", { "": "All cameras" });
  #rule = select("event-rule", { "": "All rules" });
  #period = select("event-period", PERIODS);
  element = h("form", { class: "fields filter", "aria-label": "Filter" }, field("Camera", this.#camera), field("Rule", this.#rule), field("Time", this.#period));

  get isSet() {
    return Boolean(this.#camera.value || this.#rule.value || this.#period.value);
  }

  get values() {
    const hours = Number.parseInt(this.#period.value, 10);
    return {
      ...(this.#camera.value && { stream: this.#camera.value }),
      ...(this.#rule.value && { rule: this.#rule.value }),
      ...(hours && { since: new Date(Date.now() - hours * 3_600_000) }),
    };
  }

  /** Offer the cameras and rules that there are, and those of the events. @param {StreamInfo[]} streams @param {StreamEvent[]} events */
  offer(streams, events) {
    const known = this.#cameras.size + this.#rules.size;
    for (const { stream, camera, rule } of events) {
      this.#cameras.set(stream, camera);
      this.#rules.add(rule);
    }
    for (const { id, title, rules = [] } of streams) {
      if (rules.length) this.#cameras.set(id, title ?? id);
      for (const rule of rules) this.#rules.add(rule);
    }
    if (known === this.#cameras.size + this.#rules.size) return; // An open list stays open.
    fill(this.#camera, [...this.#cameras]);
    fill(this.#rule, [...this.#rules].map((rule) => [rule, rule]));
  }
}

/** Fill a list after its first choice. @param {HTMLSelectElement} list @param {[string, string][]} choices texts by value */
function fill(list, choices) {
  const { value } = list;
  const sorted = choices.sort((a, b) => a[1].localeCompare(b[1]));
  list.replaceChildren(list.options[0], ...sorted.map(([id, text]) => h("option", { value: id }, text)));
  list.value = value;
}

/** Events with their snapshots, the newest first. Updates keep the elements, so that the focus stays where it is. */
export class EventList {
  /** @type {Map<string, EventItem>} */ #items = new Map(); // by the event's id
  #signal;
  #seen; // loads the snapshots that come near the screen
  element = h("ol", { class: "events", "aria-label": "Events" });

  /** @param {AbortSignal} signal frees the snapshots */
  constructor(signal) {
    this.#signal = signal;
    this.#seen = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          if (!isIntersecting) continue;
          this.#seen.unobserve(target);
          for (const item of this.#items.values()) if (item.element === target) item.loadSnapshot(this.#signal);
        }
      },
      { rootMargin: MARGIN },
    );
    signal.addEventListener("abort", () => this.#seen.disconnect());
  }

  /** @param {StreamEvent[]} events the newest first */
  show(events) {
    const ids = new Set(events.map(({ id }) => id));
    for (const [id, item] of this.#items) {
      if (ids.has(id)) continue;
      item.element.remove();
      this.#items.delete(id);
    }
    let next = this.element.firstElementChild;
    for (const event of events) {
      let item = this.#items.get(event.id);
      if (!item) {
        item = new EventItem(event);
        this.#items.set(event.id, item);
        this.#seen.observe(item.element);
      }
      item.show(event);
      if (item.element === next) next = next.nextElementSibling;
      else this.element.insertBefore(item.element, next);
    }
  }
}

/** One event. */
class EventItem {
  #badge = h("span", { class: "badge" });
  #what = h("p", { class: "muted small" });
  #picture = h("div", { class: "event-picture" }, icon("events"));
  #clip = h("button", { type: "button", class: "quiet small", hidden: true }, icon("play"), "Clip");
  #event;
  element;

  /** @param {StreamEvent} event */
  constructor(event) {
    this.#event = event;
    this.#clip.addEventListener("click", () => void showClip(this.#event));
    const start = new Date(event.start);
    this.element = h(
      "li",
      { class: "card event" },
      this.#picture,
      h(
        "div",
        { class: "event-text" },
        h("div", { class: "head-title" }, h("h2", {}, event.rule), this.#badge),
        h("p", {}, h("a", { href: `#/streams/${encodeURIComponent(event.stream)}` }, event.camera)),
        h("p", { class: "small number" }, h("time", { datetime: event.start, title: `${event.start} (UTC)` }, wallClock.format(start))),
        this.#what,
        this.#clip,
      ),
    );
  }

  /** @param {StreamEvent} event */
  show(event) {
    this.#event = event;
    this.#clip.hidden = !event.clip;
    const isOpen = event.state === "started";
    const lasted = event.end ? (Date.parse(event.end) - Date.parse(event.start)) / 1000 : 0;
    this.#badge.className = isOpen ? "badge warn" : "badge";
    setText(this.#badge, isOpen ? "Now" : event.line ? `To the ${event.direction}` : lasted < 1 ? "Under 1 s" : duration(lasted));
    setText(this.#what, describe(event));
  }

  /** Show the snapshot, which opens in a tab of its own. @param {AbortSignal} signal frees it */
  loadSnapshot(signal) {
    const { id, rule, camera, snapshot } = this.#event;
    if (!snapshot) return;
    client.snapshot(id, { signal }).then(
      (jpeg) => {
        if (signal.aborted) return;
        const url = URL.createObjectURL(jpeg);
        signal.addEventListener("abort", () => URL.revokeObjectURL(url));
        const image = h("img", { src: url, alt: `The picture when ${rule} started` });
        this.#picture.replaceChildren(h("a", { href: url, target: "_blank", rel: "noopener", "aria-label": `Snapshot of ${rule}, ${camera}` }, image));
      },
      () => {}, // The icon stays: there is no snapshot any more.
    );
  }
}

const wallClock = new Intl.DateTimeFormat("en", { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" });

/** Say what was seen. @param {StreamEvent} event */
function describe({ classes, zone, line, objects = [], count = 0, confidence, area }) {
  const ids = objects.slice(0, 5).map((id) => `#${id}`);
  if (objects.length > ids.length) ids.push("…");
  const place = zone ? `in ${zone}` : line ? `across ${line}` : "";
  const most = count > 1 ? `up to ${number(count)} at once` : "";
  const sure = confidence != null ? `${percent(confidence)} % sure` : area != null ? `${percent(area)} % of it` : "";
  return [`${classes.join(", ")} ${ids.join(" ")} ${place}`.replace(/ +/g, " ").trim(), most, sure].filter(Boolean).join(" · ");
}
