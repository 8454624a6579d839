// Copies uPlot and RapiDoc from npm into the dashboard, with a manifest of their versions and hashes: `make vendor`.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

// RapiDoc's bundle is self-contained. As a dependency, RapiDoc would install 130 packages that aren't needed.
const RAPIDOC = {
  version: "9.3.8",
  license: "MIT",
  integrity: "sha512-eCYEbr1Xr8OJZvVCw8SXl9zBCRoLJbhNGuG5IZTHq/RWAOq/O4MafUCuFEyZHsrhLrlUcGZMa64pyhpib8fQKQ==",
};

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "../../server/keywarp/server/dashboard/page/vendor");
const uplot = join(here, "node_modules/uplot");
const unpacked = mkdtempSync(join(tmpdir(), "keywarp-web-"));
const rapidoc = join(unpacked, "package");
const lock = JSON.parse(readFileSync(join(here, "package-lock.json"), "utf8"));

/** Source and target of each copy. */
const FILES = [
  [join(uplot, "dist/uPlot.esm.js"), "uPlot.js"],
  [join(uplot, "dist/uPlot.d.ts"), "uPlot.d.ts"],
  [join(uplot, "dist/uPlot.min.css"), "uPlot.min.css"],
  [join(uplot, "LICENSE"), "uPlot.LICENSE.txt"],
  [join(rapidoc, "dist/rapidoc-min.js"), "rapidoc-min.js"],
  [join(rapidoc, "dist/rapidoc-min.js.LICENSE.txt"), "rapidoc-min.js.LICENSE.txt"],
  [join(rapidoc, "LICENSE.txt"), "rapidoc.LICENSE.txt"],
];

/** Download and unpack RapiDoc's package, and check its hash. */
function unpackRapidoc() {
  execFileSync("npm", ["pack", "--silent", `rapidoc@${RAPIDOC.version}`, "--pack-destination", unpacked]);
  const archive = join(unpacked, `rapidoc-${RAPIDOC.version}.tgz`);
  const integrity = `sha512-${createHash("sha512").update(readFileSync(archive)).digest("base64")}`;
  if (integrity !== RAPIDOC.integrity) throw new Error(`rapidoc ${RAPIDOC.version} has the hash ${integrity} instead of ${RAPIDOC.integrity}`);
  execFileSync("tar", ["-xzf", archive, "-C", unpacked]);
}

mkdirSync(target, { recursive: true });
try {
  unpackRapidoc();
  const sha256 = Object.fromEntries(
    FILES.map(([from, to]) => {
      copyFileSync(from, join(target, to));
      return [to, createHash("sha256").update(readFileSync(from)).digest("hex")];
    }),
  );
  const { version, integrity, license } = lock.packages["node_modules/uplot"];
  const manifest = { packages: { uplot: { version, license, integrity }, rapidoc: RAPIDOC }, sha256 };
  writeFileSync(join(target, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
} finally {
  rmSync(unpacked, { recursive: true });
}
