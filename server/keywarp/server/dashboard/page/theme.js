/** Light, dark, or as the system has it; and the colours for what is painted on canvases. */

import { byId } from "./dom.js";

/** @typedef {"system" | "light" | "dark"} Theme */

/** @type {Theme[]} */
const THEMES = ["system", "light", "dark"];
const system = matchMedia("(prefers-color-scheme: dark)");

/** Says `change`. */
export const theme = new EventTarget();

/** @type {Map<string, string>} */
const colors = new Map();
const probe = document.createElement("span");
probe.hidden = true;

/** @param {string} name of a CSS variable @returns {string} its colour now */
export function color(name) {
  let found = colors.get(name);
  if (!found) {
    if (!probe.isConnected) document.body.append(probe);
    probe.style.color = `var(${name})`;
    found = getComputedStyle(probe).color;
    colors.set(name, found);
  }
  return found;
}

/** Make the button work. */
export function startTheme() {
  const button = byId("theme");
  const show = () => {
    const now = current();
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    const said = `Theme: ${now}. Change to ${next}`;
    button.setAttribute("aria-label", said);
    button.title = said;
    byId("theme-icon").setAttribute("href", `/dashboard/icons.svg#${now}`);
    colors.clear();
    theme.dispatchEvent(new Event("change"));
  };
  button.addEventListener("click", () => {
    const next = THEMES[(THEMES.indexOf(current()) + 1) % THEMES.length];
    document.documentElement.dataset.theme = next;
    localStorage.setItem("keywarp.theme", next);
    show();
  });
  system.addEventListener("change", show);
  show();
}

/** @returns {Theme} */
const current = () => THEMES.find((one) => one === document.documentElement.dataset.theme) ?? "system";
