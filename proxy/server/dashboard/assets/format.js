// How figures are written. What is not known is said to be so, and is never 0.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export const UNKNOWN = "unknown";

export function count(value) {
  return isKnown(value) ? value.toLocaleString("en") : UNKNOWN;
}

export function bytes(value) {
  if (!isKnown(value)) return UNKNOWN;
  let amount = value;
  let unit = 0;
  while (Math.abs(amount) >= 1024 && unit < UNITS.length - 1) {
    amount /= 1024;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(amount) >= 100 ? 0 : 1;
  return `${amount.toFixed(digits)} ${UNITS[unit]}`;
}

// Never 100 % while something is missing.
export function share(part, whole) {
  const percent = (100 * part) / whole;
  if (part !== whole && percent > 99) return `${(Math.floor(percent * 10) / 10).toFixed(1)} %`;
  return `${percent.toFixed(percent < 10 && part ? 1 : 0)} %`;
}

export function seconds(value) {
  if (!isKnown(value)) return UNKNOWN;
  if (value < 90) return `${Math.max(0, Math.round(value))} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  if (value < 172800) return `${Math.round(value / 3600)} h`;
  return `${Math.round(value / 86400)} days`;
}

export function clock(epoch) {
  return new Date(epoch * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
}

// With the day, where it is not today.
export function moment(epoch, now) {
  const then = new Date(epoch * 1000);
  if (then.toDateString() === new Date(now * 1000).toDateString()) return clock(epoch);
  return `${then.toLocaleDateString([], { day: "numeric", month: "short" })} ${clock(epoch)}`;
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function sum(values) {
  return Object.values(values).reduce((total, each) => total + each, 0);
}

function isKnown(value) {
  return value !== null && value !== undefined;
}
