/** The theme (light, dark or the system's), and its colours for drawing on canvases. */

import { byId } from "./dom.js";

/** @typedef {"system" | "light" | "dark"} Theme */

/** @type {Theme[]} */
const THEMES = ["system", "light", "dark"];
const system = matchMedia("(prefers-color-scheme: dark)");

/** Dispatches `change` when the theme changes. */
export const theme = new EventTarget();

/** @type {Map<string, string>} */
const colors = new Map();
const probe = document.createElement("span");
probe.hidden = true;

/** Look up a colour of the current theme. @param {string} name a CSS variable @returns {string} as `rgb(...)` */
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

/** Let the theme button switch themes. */
export function startTheme() {
  const button = byId("theme");
  const show = () => {
    const now = current();
    const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    const label = `Theme: ${now}. Change to ${next}`;
    button.setAttribute("aria-label", label);
    button.title = label;
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
