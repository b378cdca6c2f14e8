// Numbers as they are shown.

const COUNT = new Intl.NumberFormat("en");

/** Return a count: 32,768. */
export function count(value) {
  return COUNT.format(value);
}

/** Return a count with its noun. */
export function counted(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Return a time in ms as it is, as seconds, or as minutes and seconds. */
export function duration(ms) {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

/** Return a number with about three digits. */
export function short(value) {
  return Math.abs(value) >= 100 ? COUNT.format(Math.round(value)) : Number(value.toPrecision(3)).toString();
}

/** Return bytes as MB or GB. */
export function bytes(value) {
  return value >= 1e9 ? `${short(value / 1e9)} GB` : `${short(value / 1e6)} MB`;
}
