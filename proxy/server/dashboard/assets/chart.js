// The course of a quota over time, and what is expected of it, as SVG. Colours are the style sheet's.

import { clock } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 170;
const EDGE = { left: 40, right: 12, top: 10, bottom: 24 };
const HOUR = 3600;
const STEPS = [300, 600, 900, 1800, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR];
const LABEL_WIDTH = 64;

export function drawCourse(svg, quota, rules, now, forecast) {
  const width = Math.max(240, svg.clientWidth);
  const [from, until] = span(quota, now);
  const x = (at) => EDGE.left + ((clamp(at, from, until) - from) / (until - from)) * (width - EDGE.left - EDGE.right);
  const y = (left) => EDGE.top + (1 - clamp(left, 0, quota.limit) / quota.limit) * (HEIGHT - EDGE.top - EDGE.bottom);
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  svg.setAttribute("aria-label", `Course of the pulls left: now ${quota.remaining} of ${quota.limit}. ${forecast}`);
  svg.replaceChildren(
    ...levels(quota, rules, x(from), x(until), y),
    ...hours(from, until, x),
    ...expected(quota, now, until, x, y),
    ...past(quota, now, from, x, y),
    line("now", x(now), EDGE.top, x(now), HEIGHT - EDGE.bottom),
    make("circle", { class: "here", cx: x(now), cy: y(quota.remaining), r: 4 }),
  );
}

// From the first that is known, an hour at least, to a while after it is used up.
function span(quota, now) {
  const first = quota.history.length ? quota.history[0][0] : now;
  const expected = quota.forecast;
  const last = expected.high ?? expected.exhausted_at ?? expected.returns_at ?? now + HOUR;
  return [Math.min(first, now - HOUR), Math.max(now + HOUR, Math.min(now + 12 * HOUR, last + HOUR / 4))];
}

function levels(quota, rules, left, right, y) {
  const shares = [0, 1, ...(rules.enabled ? [rules.careful, rules.tight, rules.reserve] : [])];
  const named = new Set([0, quota.limit]);
  if (rules.enabled) named.add(Math.round(rules.careful * quota.limit));
  return shares.flatMap((share) => {
    const value = share * quota.limit;
    const drawn = [line(share === 0 ? "axis" : "level", left, y(value), right, y(value))];
    if (named.has(Math.round(value))) drawn.push(text("end", left - 6, y(value) + 4, Math.round(value)));
    return drawn;
  });
}

function hours(from, until, x) {
  const most = Math.max(2, Math.floor((x(until) - x(from)) / LABEL_WIDTH));
  const step = STEPS.find((each) => (until - from) / each <= most) ?? 24 * HOUR;
  const shift = new Date(from * 1000).getTimezoneOffset() * 60;
  const drawn = [];
  for (let at = Math.ceil((from - shift) / step) * step + shift; at <= until; at += step) {
    drawn.push(line("tick", x(at), HEIGHT - EDGE.bottom, x(at), HEIGHT - EDGE.bottom + 4));
    if (x(at) < x(until) - 16) drawn.push(text("middle", x(at), HEIGHT - 6, clock(at)));
  }
  return drawn;
}

// What is told holds until something else is told: steps, no slopes.
function past(quota, now, from, x, y) {
  const points = quota.history.filter(([at]) => at >= from && at <= now);
  if (!points.length) return [];
  let path = `M${x(points[0][0])} ${y(points[0][1])}`;
  for (const [at, left] of points.slice(1)) path += `H${x(at)}V${y(left)}`;
  path += `H${x(now)}`;
  const area = `${path}V${y(0)}H${x(points[0][0])}Z`;
  return [make("path", { class: "area", d: area }), make("path", { class: "course", d: path })];
}

function expected(quota, now, until, x, y) {
  const { state, exhausted_at: at, low, high } = quota.forecast;
  if (state !== "falling" || at === null) return [];
  const here = `${x(now)} ${y(quota.remaining)}`;
  const late = high === null ? `L${x(until)} ${y(0)}V${y(quota.remaining)}` : `L${x(high)} ${y(0)}`;
  const band = make("path", { class: "band", d: `M${here}L${x(low ?? at)} ${y(0)}${late}Z` });
  return [band, make("path", { class: "forecast", d: `M${here}L${x(at)} ${y(0)}` })];
}

function line(kind, x1, y1, x2, y2) {
  return make("line", { class: kind, x1, y1, x2, y2 });
}

function text(anchor, x, y, content) {
  const node = make("text", { "text-anchor": anchor, x, y });
  node.textContent = content;
  return node;
}

function make(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function clamp(value, low, high) {
  return Math.min(high, Math.max(low, value));
}
