/** The view in which the zones, lines and rules of a stream are drawn and written. */

import { client, describeError, keepReading, request } from "./api.js";
import { h, icon, setText, toast } from "./dom.js";
import { PlaceEditor } from "./place-editor.js";
import { RuleForm } from "./rule-form.js";
import { Draft, DraftRule, MAX_RULES, NAME } from "./rules-draft.js";
import { showSiteFile } from "./site-file.js";
import { SinkChoice } from "./sink-choice.js";
import { field } from "./stream-options.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./places.js").Place} Place */
/** @typedef {import("./vendor/messages.js").Model} Model */
/** @typedef {import("./vendor/messages.js").StreamInfo} StreamInfo */

const PREVIEW = { fps: 5, width: 960, zones: false };

/** What the user hasn't saved yet, by the stream's id: it is still there after a look at another view. @type {Map<string, Draft>} */
const unsaved = new Map();
addEventListener("beforeunload", (event) => unsaved.size && event.preventDefault());

/** @param {AbortSignal} signal @param {string} id */
export function rulesView(signal, id) {
  const content = h("div", {}, h("p", { class: "muted" }, "Loading"));
  const camera = h("span", { class: "muted" }, id);
  const actions = h("div", { class: "actions" });
  const load = async () => {
    const [stream, models, saved] = await request(() => Promise.all([client.stream(id), client.models(), client.rules(id, { signal })]));
    const model = models.find(({ name }) => name === stream.model);
    if (signal.aborted) return;
    setText(camera, stream.title ?? id);
    const editor = new RulesEditor(stream, model, saved, signal);
    content.replaceChildren(editor.element);
    actions.replaceChildren(...editor.actions);
  };
  load().catch((error) => signal.aborted || content.replaceChildren(h("p", { class: "notice bad", role: "alert" }, describeError(error))));
  const back = h("a", { class: "button quiet icon-button", href: `#/streams/${encodeURIComponent(id)}`, "aria-label": `Back to ${id}` }, icon("back"));
  return h(
    "div",
    { class: "stack" },
    h("div", { class: "head flat" }, h("div", { class: "head-title" }, back, h("h1", {}, "Zones and rules"), camera), actions),
    content,
  );
}

/** The picture with its places, the list of places, the rules, and what applies to all of them. */
class RulesEditor {
  #id;
  #model;
  #saved; // as JSON
  /** @type {Draft} */ #draft;
  #editor;
  /** @type {RuleForm[]} */ #forms = [];
  #failure = h("p", { class: "notice bad", role: "alert" });
  #state = h("span", { class: "muted small", role: "status" });
  #save = h("button", { type: "submit", form: "rules-form", class: "primary" }, "Save");
  #discard = h("button", { type: "button", onclick: () => this.#restore() }, "Discard");
  #drawBar = h("div", { class: "draw-bar", hidden: true });
  #placeList = h("ul", { class: "place-list", "aria-label": "Zones and lines" });
  #ruleList = h("div", { class: "stack" });
  #settings = h("section", { class: "card padded stack", "aria-label": "For all rules" });
  actions = [this.#state, this.#discard, this.#save];
  element;

  /**
   * @param {StreamInfo} stream
   * @param {Model | undefined} model
   * @param {import("./vendor/messages.js").Rules} saved
   * @param {AbortSignal} signal
   */
  constructor(stream, model, saved, signal) {
    this.#id = stream.id;
    this.#model = model;
    const clean = new Draft(saved);
    this.#saved = JSON.stringify(clean.toRules(model));
    this.#draft = unsaved.get(stream.id) ?? clean;
    this.#editor = new PlaceEditor(signal);
    this.#editor.addEventListener("change", () => this.#changed());
    this.#editor.addEventListener("select", () => this.#showPlaces());
    this.#editor.addEventListener("drawing", () => this.#showDrawing());
    const form = h(
      "form",
      { id: "rules-form", class: "stack", novalidate: true },
      this.#failure,
      h("div", { class: "view picture-first" }, this.#picture(signal), this.#aside()),
      h("div", { class: "head flat" }, h("h2", {}, "Rules"), h("button", { type: "button", onclick: () => this.#addRule() }, icon("plus"), "Add a rule")),
      this.#ruleList,
      this.#settings,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#submit(form);
    });
    this.element = form;
    this.#show();
  }

  // -- parts ----------------------------------------------------------------------------------------------------------

  /** @param {AbortSignal} signal */
  #picture(signal) {
    const viewer = new Viewer(`Live picture of stream ${this.#id}`);
    viewer.element.append(this.#editor.element);
    viewer.showMessage("No picture yet: zones and lines can be drawn nevertheless");
    void keepReading(async (inner) => {
      for await (const jpeg of client.preview(this.#id, { ...PREVIEW, signal: inner })) {
        const picture = await createImageBitmap(jpeg);
        viewer.showMessage();
        viewer.show(picture, picture.width, picture.height);
        this.#editor.resize(picture.width, picture.height);
        picture.close();
      }
      return true;
    }, signal);
    const keys = "Arrow keys move a corner by 1 %, with Shift by 0.1 %. + adds one after it, Delete removes it.";
    return h(
      "section",
      { class: "card", "aria-label": "Picture" },
      viewer.element,
      h("div", { class: "viewer-details" }, this.#drawBar, h("p", { class: "hint flush", id: "places-keys" }, keys)),
    );
  }

  #aside() {
    const add = (/** @type {Place["kind"]} */ kind) =>
      h("button", { type: "button", onclick: () => this.#editor.draw(kind, this.#draft.newPlaceName(kind)) }, icon("plus"), kind === "zone" ? "Zone" : "Line");
    const objects = this.#model?.task !== "segmentation";
    return h(
      "section",
      { class: "card padded stack aside", "aria-label": "Places" },
      h("div", { class: "head flat" }, h("h2", {}, "Zones and lines"), h("div", { class: "actions" }, add("zone"), objects && add("line"))),
      this.#placeList,
      h("p", { class: "hint flush" }, objects ? "An object is where it stands: at the middle of the lower edge of its box." : "A rule counts the pixels of its classes in the zone."),
    );
  }

  #show() {
    this.#editor.show(this.#draft.places);
    this.#showRules();
    this.#showSettings();
    this.#changed();
  }

  #showDrawing() {
    const kind = this.#editor.drawing;
    this.#drawBar.hidden = !kind;
    if (!kind) return;
    const how =
      kind === "zone"
        ? "Click the corners one after the other, and the first one again at the end; or drag a rectangle."
        : "Click the two ends, or drag from one to the other.";
    const finish = h("button", { type: "button", disabled: !this.#editor.canFinish, onclick: () => this.#editor.finish() }, "Finish");
    const standard = h("button", { type: "button", onclick: () => this.#editor.finish(true) }, kind === "zone" ? "Place a rectangle" : "Place a line");
    this.#drawBar.replaceChildren(
      h("p", { role: "status" }, how),
      h("div", { class: "actions" }, kind === "zone" ? finish : null, standard, h("button", { type: "button", onclick: () => this.#editor.cancel() }, "Cancel")),
    );
  }

  #showPlaces() {
    const focused = document.activeElement?.id;
    this.#placeList.replaceChildren(...this.#draft.places.map((place, i) => this.#placeItem(place, i)));
    this.#placeList.hidden = !this.#draft.places.length;
    if (focused?.startsWith("place-")) document.getElementById(focused)?.focus();
  }

  /** @param {Place} place @param {number} i */
  #placeItem(place, i) {
    const isSelected = place === this.#editor.selected;
    const name = h("input", { id: `place-${i}`, pattern: NAME, required: true, spellcheck: "false", autocomplete: "off", value: place.name });
    const move = () => {
      this.#editor.select(place);
      this.#editor.focus(0);
    };
    const points = h("button", { type: "button", class: "quiet", "aria-pressed": isSelected ? "true" : "false", onclick: move }, "Points");
    const reverse = h("button", { type: "button", class: "quiet", onclick: () => this.#reverse(place), hidden: place.kind === "zone" }, "Reverse");
    const rule = h("button", { type: "button", class: "quiet", onclick: () => this.#addRule(place) }, "Rule");
    const remove = h("button", { type: "button", class: "quiet icon-button danger", onclick: () => this.#remove(place) }, icon("trash"));
    const label = () => {
      points.setAttribute("aria-label", `Points of ${place.name}`);
      reverse.setAttribute("aria-label", `Reverse ${place.name}`);
      rule.setAttribute("aria-label", `Rule for ${place.name}`);
      remove.setAttribute("aria-label", `Delete ${place.name}`);
    };
    label();
    name.addEventListener("input", () => {
      place.name = name.value;
      label();
      this.#editor.render();
      for (const form of this.#forms) form.update();
      this.#changed({ places: false });
    });
    name.addEventListener("focus", () => place !== this.#editor.selected && this.#editor.select(place));
    return h(
      "li",
      { class: isSelected ? "selected" : "" },
      h("label", { for: name.id }, place.kind === "zone" ? "Zone" : "Line"),
      name,
      h("div", { class: "actions" }, points, reverse, rule, remove),
    );
  }

  #showRules() {
    this.#forms = this.#draft.rules.map((rule) => {
      const remove = () => {
        this.#draft.rules = this.#draft.rules.filter((one) => one !== rule);
        this.#showRules();
        this.#changed();
      };
      return new RuleForm(rule, this.#draft, this.#model, { onchange: () => this.#changed({ places: false }), onremove: remove });
    });
    const hint =
      this.#model?.task === "dense"
        ? `${this.#model.name} gives maps of numbers. Rules need a model that finds classes.`
        : "There are no rules yet. A rule says what to report: someone in a zone for ten seconds, or a car that crosses a line.";
    this.#ruleList.replaceChildren(...(this.#forms.length ? this.#forms.map(({ element }) => element) : [h("p", { class: "muted" }, hint)]));
  }

  #showSettings() {
    const { settings } = this.#draft;
    const change = (/** @type {() => void} */ write) => () => {
      write();
      this.#changed({ places: false });
    };
    const title = h("input", { id: "rules-title", maxlength: 200, value: settings.title ?? "", placeholder: this.#id, autocomplete: "off" });
    title.addEventListener("input", change(() => (settings.title = title.value || null)));
    const zones = h("datalist", { id: "time-zones" }, ...Intl.supportedValuesOf("timeZone").map((value) => h("option", { value })));
    const timezone = h("input", { id: "rules-timezone", required: true, list: "time-zones", value: settings.timezone ?? "UTC", autocomplete: "off", spellcheck: "false" });
    timezone.addEventListener("input", change(() => (settings.timezone = timezone.value)));
    const sinks = new SinkChoice("rules-events", "Events go to", (sink) => sink.events, settings.events ?? []);
    sinks.element.addEventListener("change", change(() => (settings.events = sinks.chosen)));
    sinks.load();
    const seconds = (/** @type {"clip_before" | "clip_after"} */ name, /** @type {string} */ label, /** @type {string} */ hint) => {
      const input = h("input", { id: `rules-${name}`, type: "number", min: 0, max: 60, step: "any", required: true, inputmode: "decimal", value: settings[name] ?? 0 });
      input.addEventListener("input", change(() => Number.isNaN(input.valueAsNumber) || (settings[name] = input.valueAsNumber)));
      return field(label, input, hint);
    };
    this.#settings.replaceChildren(
      h("h2", {}, "For all rules"),
      h(
        "div",
        { class: "fields" },
        field("Camera's name", title),
        field("Time zone", timezone),
        seconds("clip_after", "Clip after the start (s)", "0: no clips"),
        seconds("clip_before", "Clip before it (s)", "From the key frame before"),
      ),
      sinks.element,
      zones,
      h(
        "div",
        { class: "actions" },
        h("button", { type: "button", onclick: () => showSiteFile(this.#id, this.#draft.toRules(this.#model)) }, icon("copy"), "For the site file"),
        h("p", { class: "hint flush" }, "Cameras of the site file are as it says after a restart or reload."),
      ),
    );
  }

  // -- changes --------------------------------------------------------------------------------------------------------

  /** Show whether there is something to save. @param {{places?: boolean}} [shown] whether the list of places may differ */
  #changed({ places = true } = {}) {
    if (places && this.#placeList.childElementCount !== this.#draft.places.length) this.#showPlaces();
    const isSaved = JSON.stringify(this.#draft.toRules(this.#model)) === this.#saved;
    if (isSaved) unsaved.delete(this.#id);
    else unsaved.set(this.#id, this.#draft);
    setText(this.#state, isSaved ? "" : "Not saved");
    this.#save.disabled = this.#discard.disabled = isSaved;
  }

  /** @param {Place} [place] */
  #addRule(place) {
    if (this.#draft.rules.length >= MAX_RULES) {
      toast(`A camera has at most ${MAX_RULES} rules.`);
      return;
    }
    this.#draft.rules.push(new DraftRule(this.#draft.newRuleName(), place ?? null));
    this.#showRules();
    this.#changed();
    const added = /** @type {HTMLDetailsElement} */ (this.#forms.at(-1)?.element);
    added.open = true;
    added.querySelector("input")?.focus();
  }

  /** @param {Place} place */
  #reverse(place) {
    place.points.reverse();
    this.#editor.select(place);
    this.#changed();
  }

  /** @param {Place} place */
  #remove(place) {
    const used = this.#draft.rules.filter((rule) => rule.place === place);
    if (used.length) {
      toast(`${place.name} is used by ${used.map(({ name }) => name).join(", ")}: choose another place there first.`);
      return;
    }
    this.#draft.removePlace(place);
    this.#editor.show(this.#draft.places);
    for (const form of this.#forms) form.update();
    this.#changed();
  }

  #restore() {
    this.#draft = new Draft(JSON.parse(this.#saved));
    this.#failure.textContent = "";
    this.#show();
  }

  /** @param {HTMLFormElement} form */
  async #submit(form) {
    this.#failure.textContent = this.#draft.nameProblem ?? "";
    if (this.#failure.textContent) return;
    const invalid = /** @type {HTMLInputElement | null} */ (form.querySelector("input:invalid"));
    if (invalid) {
      const closed = invalid.closest("details");
      if (closed) closed.open = true;
      invalid.reportValidity();
      return;
    }
    this.#save.disabled = true;
    try {
      const saved = await request(() => client.setRules(this.#id, this.#draft.toRules(this.#model)));
      this.#saved = JSON.stringify(new Draft(saved).toRules(this.#model));
      toast(this.#draft.rules.length ? "Saved. The rules apply from now on." : "Saved. There are no rules, so there will be no events.");
    } catch (error) {
      this.#failure.textContent = describeError(error);
      this.#failure.scrollIntoView({ block: "nearest" });
    } finally {
      this.#changed();
    }
  }
}
