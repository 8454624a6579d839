/** Formatting of numbers for people. */

export const NONE = "–"; // shown where there is no value

/** @param {number | null | undefined} value @param {number} digits */
export const number = (value, digits = 0) =>
  value == null ? NONE : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** Format a rate. @param {number | null | undefined} rate per second */
export const rate = (rate) => number(rate, rate && rate < 99.95 ? 1 : 0);

/** Format a latency as a number and its unit. @param {number | null | undefined} seconds @returns {[string, string]} */
export function latency(seconds) {
  if (seconds == null) return [NONE, ""];
  return seconds < 0.9995 ? [number(seconds * 1000, seconds && seconds < 0.00995 ? 1 : 0), "ms"] : [number(seconds, seconds < 9.95 ? 2 : 1), "s"];
}

/** Format a short time in seconds. @param {number} time */
export const seconds = (time) => `${number(time, time < 9.95 ? 1 : 0)} s`;

/** Format a share in percent. @param {number | null | undefined} share 0..1 @returns {string} without the percent sign */
export const percent = (share) => number(share == null ? null : share * 100, share && share < 0.01 ? 1 : 0);

/** @param {number} seconds */
export function duration(seconds) {
  const s = Math.floor(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

/** @param {number} seconds @returns {string} like 1:05 */
export const clock = (seconds) =>
  `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

/** @param {number} bytes */
export const megabytes = (bytes) => `${number(bytes / 1e6, bytes < 1e8 ? 1 : 0)} MB`;

/** @param {number[]} values */
export const mean = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);

/** Find the value below which a share of all values lies. @param {number[]} values @param {number} share 0..1 */
export function quantile(values, share) {
  if (!values.length) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}
