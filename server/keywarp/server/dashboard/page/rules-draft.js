/** A camera's zones, lines and rules while they are changed: what refers to a place follows it when it is renamed. */

import { copyOf } from "./places.js";

/** @typedef {import("./places.js").Place} Place */
/** @typedef {import("./vendor/messages.js").Day} Day */
/** @typedef {import("./vendor/messages.js").Model} Model */
/** @typedef {import("./vendor/messages.js").Point} Point */
/** @typedef {import("./vendor/messages.js").Rule} Rule */
/** @typedef {import("./vendor/messages.js").Rules} Rules */

export const NAME = "[A-Za-z0-9][A-Za-z0-9_\\-]{0,63}"; // a pattern
export const MAX_RULES = 64; // also the most zones and the most lines

/** @type {Record<Day, string>} */
export const DAYS = { mon: "Mon", tue: "Tue", wed: "Wed", thu: "Thu", fri: "Fri", sat: "Sat", sun: "Sun" };

/** @type {Required<Omit<Rule, "zone" | "line">>} */
const DEFAULTS = { classes: [], direction: "both", min_confidence: 0.5, min_area: 0, min_seconds: 0, min_count: 1, cooldown: 0, times: [], days: [] };

/** A rule while it is changed. */
export class DraftRule {
  /**
   * @param {string} name
   * @param {Place | null} place where; anywhere if null
   * @param {Rule} rule
   */
  constructor(name, place, rule = {}) {
    this.name = name;
    this.place = place;
    const { zone: _zone, line: _line, ...rest } = rule;
    this.options = { ...DEFAULTS, ...rest };
  }

  /** @param {Model | undefined} model @returns {Rule} */
  toRule(model) {
    const { direction, min_seconds, min_count, min_confidence, ...options } = this.options;
    /** @type {Rule} */ const rule = options;
    const objects = model?.task !== "segmentation";
    if (this.place?.kind === "line") return { ...rule, min_confidence, line: this.place.name, direction };
    return { ...rule, min_seconds, ...(objects && { min_confidence, min_count }), ...(this.place && { zone: this.place.name }) };
  }

  /** Say in a sentence what the rule reports. @param {Model | undefined} model */
  describe(model) {
    const { classes, direction, min_seconds, min_count, times } = this.options;
    const objects = model?.task !== "segmentation";
    const what = classes.length ? classes.join(" or ") : "anything";
    const many = objects && min_count > 1 && this.place?.kind !== "line" ? `${min_count} × ` : "";
    const side = direction === "both" ? "" : ` to the ${direction}`;
    const where = !this.place ? "anywhere" : this.place.kind === "zone" ? `in ${this.place.name}` : `across ${this.place.name}${side}`;
    const long = min_seconds && this.place?.kind !== "line" ? ` for ${min_seconds} s` : "";
    return `${many}${what} ${where}${long}${times.length ? `, ${times.join(", ")}` : ""}`;
  }
}

/** The zones, lines and rules of one camera. */
export class Draft {
  /** @type {Place[]} */ places = [];
  /** @type {DraftRule[]} */ rules = [];
  /** @type {Omit<Rules, "zones" | "lines" | "rules">} */ settings;

  /** @param {Rules} saved */
  constructor({ zones = {}, lines = {}, rules = {}, ...settings }) {
    this.settings = settings;
    for (const [name, points] of Object.entries(zones)) this.places.push({ kind: "zone", name, points: copyOf(points) });
    for (const [name, points] of Object.entries(lines)) this.places.push({ kind: "line", name, points: copyOf(points) });
    for (const [name, rule] of Object.entries(rules)) {
      const kind = rule.line != null ? "line" : "zone";
      const place = this.places.find((one) => one.kind === kind && one.name === (rule.line ?? rule.zone));
      this.rules.push(new DraftRule(name, place ?? null, rule));
    }
  }

  /** @param {Model | undefined} model @returns {Rules} */
  toRules(model) {
    const points = (/** @type {Place["kind"]} */ kind) =>
      Object.fromEntries(this.places.filter((one) => one.kind === kind).map(({ name, points }) => [name, copyOf(points)]));
    return {
      ...this.settings,
      zones: points("zone"),
      lines: /** @type {Record<string, [Point, Point]>} */ (points("line")),
      rules: Object.fromEntries(this.rules.map((rule) => [rule.name, rule.toRule(model)])),
    };
  }

  /** @param {Place["kind"]} kind @returns {string} a name that no place of the kind has */
  newPlaceName(kind) {
    return unused(kind, this.places.filter((one) => one.kind === kind).map(({ name }) => name));
  }

  /** @returns {string} a name that no rule has */
  newRuleName() {
    return unused("rule", this.rules.map(({ name }) => name));
  }

  /** Remove a place that no rule is about. @param {Place} place */
  removePlace(place) {
    this.places = this.places.filter((one) => one !== place);
  }

  /** Why the server would refuse the names, or nothing. @returns {string | null} */
  get nameProblem() {
    for (const [what, names] of /** @type {[string, string[]][]} */ ([
      ["zones", this.places.filter(({ kind }) => kind === "zone").map(({ name }) => name)],
      ["lines", this.places.filter(({ kind }) => kind === "line").map(({ name }) => name)],
      ["rules", this.rules.map(({ name }) => name)],
    ])) {
      const wrong = names.find((name) => !new RegExp(`^(?:${NAME})$`).test(name));
      if (wrong !== undefined) return `A name has 1 to 64 letters, digits, - and _, and begins with a letter or digit. Among the ${what} is “${wrong}”.`;
      const twice = names.find((name, i) => names.indexOf(name) !== i);
      if (twice !== undefined) return `Two ${what} have the name ${twice}.`;
    }
    return null;
  }
}

/** @param {string} stem @param {string[]} taken */
function unused(stem, taken) {
  let number = 1;
  while (taken.includes(`${stem}-${number}`)) number++;
  return `${stem}-${number}`;
}
