/** The form fields of one rule. */

import { h, icon } from "./dom.js";
import { DAYS, NAME } from "./rules-draft.js";
import { field, select } from "./stream-options.js";

/** @typedef {import("./places.js").Place} Place */
/** @typedef {import("./rules-draft.js").Draft} Draft */
/** @typedef {import("./rules-draft.js").DraftRule} DraftRule */
/** @typedef {import("./vendor/messages.js").Day} Day */
/** @typedef {import("./vendor/messages.js").Model} Model */

const DIRECTIONS = { both: "Either side", left: "To its left", right: "To its right" };
const MAX_TIMES = 16;
const DIGITS = 6; // of shares; more are noise of the conversion from percent
let count = 0; // of forms, for ids

/** The fields of a rule in a section that can be closed. They write into the draft at once. */
export class RuleForm {
  #rule;
  #draft;
  #model;
  #onchange;
  #prefix = `rule-${(count += 1)}`;
  #summary = h("span", { class: "rule-summary" });
  #title = h("b", {});
  #where = select(`${this.#prefix}-where`, {});
  #direction;
  #classes = h("div", { class: "chips" });
  #times = h("div", { class: "stack tight" });
  /** @type {HTMLElement[]} */ #ofZones = []; // fields that only rules without a line have
  element;

  /**
   * @param {DraftRule} rule
   * @param {Draft} draft
   * @param {Model | undefined} model
   * @param {{onchange: () => void, onremove: () => void}} callbacks
   */
  constructor(rule, draft, model, { onchange, onremove }) {
    this.#rule = rule;
    this.#draft = draft;
    this.#model = model;
    this.#onchange = onchange;
    const objects = model?.task !== "segmentation";
    const name = h("input", { id: `${this.#prefix}-name`, pattern: NAME, required: true, spellcheck: "false", autocomplete: "off", value: rule.name });
    name.addEventListener("input", () => this.#change(() => (rule.name = name.value)));
    this.#where.addEventListener("change", () => this.#change(() => (rule.place = this.#where.value ? draft.places[Number(this.#where.value)] : null)));
    const direction = select(`${this.#prefix}-direction`, DIRECTIONS);
    direction.value = rule.options.direction;
    direction.addEventListener("change", () => this.#change(() => (rule.options.direction = /** @type {"both"} */ (direction.value))));
    this.#direction = field("Crossing", direction, "Left and right as seen from point 1 to point 2. The arrow points to the right.");
    const areaHint = objects ? "Of an object's box, in % of the picture" : "Of the classes together, in % of the zone";
    const area = this.#number("Smallest size (%)", "min_area", { max: 100, percent: true, hint: areaHint });
    const lasting = this.#number("At least for (s)", "min_seconds", { max: 86400 });
    const least = this.#number("At least so many at once", "min_count", { min: 1, max: 1000, step: 1 });
    this.#ofZones = [lasting, least];
    this.element = h(
      "details",
      { class: "card rule" },
      h("summary", {}, this.#title, this.#summary),
      h(
        "div",
        { class: "stack rule-fields" },
        h("div", { class: "fields" }, field("Name", name), field("Where", this.#where), this.#direction),
        h("fieldset", {}, h("legend", { class: "label" }, "What"), this.#classes),
        h(
          "div",
          { class: "fields" },
          objects && this.#number("Least confidence (%)", "min_confidence", { max: 100, percent: true }),
          area,
          lasting,
          objects && least,
          this.#number("Pause after an event (s)", "cooldown", { max: 86400 }),
        ),
        h("fieldset", {}, h("legend", { class: "label" }, "At what times"), this.#times),
        h("fieldset", {}, h("legend", { class: "label" }, "On which days"), this.#days()),
        h("div", { class: "actions" }, h("button", { type: "button", class: "danger", onclick: onremove }, icon("trash"), "Remove the rule")),
      ),
    );
    this.#showClasses();
    this.#showTimes();
    this.update();
  }

  /** Show the places and the summary anew. */
  update() {
    const { place } = this.#rule;
    const objects = this.#model?.task !== "segmentation";
    const choices = this.#draft.places.flatMap((one, i) => (one.kind === "zone" || objects ? [h("option", { value: i }, one.kind === "zone" ? `In ${one.name}` : `Across ${one.name}`)] : []));
    this.#where.replaceChildren(h("option", { value: "" }, "Anywhere"), ...choices);
    this.#where.value = place ? String(this.#draft.places.indexOf(place)) : "";
    this.#direction.hidden = place?.kind !== "line";
    for (const one of this.#ofZones) one.hidden = place?.kind === "line";
    this.#title.textContent = this.#rule.name;
    this.#summary.textContent = this.#rule.describe(this.#model);
  }

  /** @param {() => void} change */
  #change(change) {
    change();
    this.update();
    this.#onchange();
  }

  /**
   * @param {string} label
   * @param {"min_confidence" | "min_area" | "min_seconds" | "min_count" | "cooldown"} option
   * @param {{min?: number, max: number, step?: number, percent?: boolean, hint?: string}} limits
   */
  #number(label, option, { min = 0, max, step, percent, hint }) {
    const { options } = this.#rule;
    const unit = percent ? 100 : 1;
    const value = Number((options[option] * unit).toFixed(DIGITS));
    const input = h("input", { id: `${this.#prefix}-${option}`, type: "number", min, max, step: step ?? "any", inputmode: step ? "numeric" : "decimal", required: true, value });
    input.addEventListener("input", () => {
      if (!Number.isNaN(input.valueAsNumber)) this.#change(() => (options[option] = Number((input.valueAsNumber / unit).toFixed(DIGITS))));
    });
    return field(label, input, hint);
  }

  /** Show the chosen classes as chips, and the model's other ones to choose from. */
  #showClasses() {
    const { options } = this.#rule;
    const known = (this.#model?.classes ?? []).slice(this.#model?.background ? 1 : 0).map(({ name }) => name);
    const id = `${this.#prefix}-class`;
    const add = h("select", { id }, h("option", { value: "" }, options.classes.length ? "Add a class" : "All classes"), ...known.filter((one) => !options.classes.includes(one)).map((one) => h("option", { value: one }, one)));
    add.addEventListener("change", () => {
      if (add.value) this.#change(() => (options.classes = [...options.classes, add.value]));
      this.#showClasses();
      document.getElementById(id)?.focus();
    });
    const chips = options.classes.map((one) => {
      const remove = () => {
        this.#change(() => (options.classes = options.classes.filter((other) => other !== one)));
        this.#showClasses();
        document.getElementById(id)?.focus();
      };
      const missing = this.#model !== undefined && !known.includes(one);
      return h(
        "span",
        { class: missing ? "chip bad" : "chip", title: missing ? `${this.#model?.name} has no such class` : null },
        one,
        h("button", { type: "button", class: "quiet", "aria-label": `Remove ${one}`, onclick: remove }, icon("close")),
      );
    });
    this.#classes.replaceChildren(...chips, h("label", { class: "visually-hidden", for: id }, "Add a class"), add);
  }

  /** Show the times of day, and a button that adds one. */
  #showTimes() {
    const { options } = this.#rule;
    const set = (/** @type {number} */ place, /** @type {string} */ from, /** @type {string} */ to) => {
      if (from && to) this.#change(() => (options.times = options.times.map((one, i) => (i === place ? `${from}-${to}` : one))));
    };
    const rows = options.times.map((span, i) => {
      const [begin, finish] = span.split("-");
      const from = h("input", { type: "time", required: true, value: begin, "aria-label": `Time ${i + 1} from` });
      const to = h("input", { type: "time", required: true, value: finish, "aria-label": `Time ${i + 1} to` });
      for (const input of [from, to]) input.addEventListener("input", () => set(i, from.value, to.value));
      const remove = () => {
        this.#change(() => (options.times = options.times.filter((_, place) => place !== i)));
        this.#showTimes();
      };
      return h("div", { class: "span" }, from, "to", to, h("button", { type: "button", class: "quiet icon-button", "aria-label": `Remove time ${i + 1}`, onclick: remove }, icon("close")));
    });
    const add = () => {
      this.#change(() => (options.times = [...options.times, "22:00-06:00"]));
      this.#showTimes();
    };
    this.#times.replaceChildren(
      ...(rows.length ? rows : [h("p", { class: "muted small" }, "Always")]),
      rows.length < MAX_TIMES ? h("div", {}, h("button", { type: "button", onclick: add }, icon("plus"), "Add a time")) : "",
    );
  }

  #days() {
    const { options } = this.#rule;
    const boxes = Object.entries(DAYS).map(([day, text]) => {
      const box = h("input", { type: "checkbox", id: `${this.#prefix}-${day}`, checked: !options.days.length || options.days.includes(/** @type {Day} */ (day)), value: day });
      return h("span", { class: "check" }, box, h("label", { for: box.id }, text));
    });
    const group = h("div", { class: "days" }, ...boxes);
    group.addEventListener("change", () => {
      const inputs = [...group.querySelectorAll("input")];
      const chosen = /** @type {Day[]} */ (inputs.filter(({ checked }) => checked).map(({ value }) => value));
      this.#change(() => (options.days = chosen.length === inputs.length ? [] : chosen));
      if (!chosen.length) for (const input of inputs) input.checked = true; // A rule for no day would be none.
    });
    return group;
  }
}
