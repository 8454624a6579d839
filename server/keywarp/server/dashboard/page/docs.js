/** The API's documentation at `/docs`: RapiDoc in the dashboard's theme and with its API key. */

import { storedKey } from "./api-key.js";

const chosen = document.documentElement.dataset.theme;
const dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
const page = document.createElement("rapi-doc");
const attributes = {
  "spec-url": "/openapi.json",
  theme: dark ? "dark" : "light",
  "bg-color": dark ? "#0b0d11" : "#f5f6f8",
  "primary-color": dark ? "#8ba4ff" : "#3a57d6",
  "load-fonts": "false", // They would come from another host.
  "regular-font": "system-ui, sans-serif",
  "mono-font": "ui-monospace, monospace",
  "render-style": "view",
  "show-header": "false",
  "allow-server-selection": "false",
  "allow-authentication": "false",
  "schema-style": "table",
};
for (const [name, value] of Object.entries(attributes)) page.setAttribute(name, value);
const key = storedKey();
if (key) {
  page.setAttribute("api-key-name", "Authorization");
  page.setAttribute("api-key-location", "header");
  page.setAttribute("api-key-value", `Bearer ${key}`);
}
document.body.append(page);
