// Copies what the dashboard takes from elsewhere into the server's package, with where it came from: `make web`.

import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../../server/keywarp/server/dashboard/page/vendor");
const uplot = join(here, "node_modules/uplot");
const lock = JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8"));

/** From, to. */
const FILES = [
  [join(here, "keywarp.js"), "keywarp.js"],
  [join(here, "bodies.js"), "bodies.js"],
  [join(here, "feed.js"), "feed.js"],
  [join(here, "messages.d.ts"), "messages.d.ts"],
  [join(uplot, "dist/uPlot.esm.js"), "uPlot.js"],
  [join(uplot, "dist/uPlot.d.ts"), "uPlot.d.ts"],
  [join(uplot, "dist/uPlot.min.css"), "uPlot.min.css"],
  [join(uplot, "LICENSE"), "uPlot.LICENSE.txt"],
];

mkdirSync(target, { recursive: true });
const sha256 = Object.fromEntries(
  FILES.map(([from, to]) => {
    copyFileSync(from, join(target, to));
    return [to, createHash("sha256").update(readFileSync(from)).digest("hex")];
  }),
);
const { version, integrity, license } = lock.packages["node_modules/uplot"];
const manifest = { packages: { uplot: { version, license, integrity } }, sha256 };
writeFileSync(join(target, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
