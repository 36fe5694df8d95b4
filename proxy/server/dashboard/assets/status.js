// The status: hits, what is stored, running fills, upstreams.

import { bytes, count, plural, seconds, share, sum, UNKNOWN } from "./format.js";
import { byId, element, figure, list, meter, parts, put, refill, show } from "./parts.js";
import { familiar, known, setClock } from "./server.js";

const SHOWN_FILLS = 12;
const GATES = { pulls: "counted pulls", requests: "all questions" };

export function showStatus(status) {
  known.status = status;
  setClock(status.now);
  put(byId("about"), `${status.version}, up ${seconds(status.uptime_seconds)}`);
  showHits(status.counters);
  showCache(status.cache);
  showFills(status.fills);
  showHealth(status.upstreams);
}

function showHits(counters) {
  const hits = sum(counters.hits);
  const asked = hits + sum(counters.misses);
  figure(byId("hit-ratio"), asked ? hits / asked : null, asked ? share(hits, asked) : UNKNOWN);
  put(byId("hit-ratio-of"), asked ? `${count(hits)} of ${plural(asked, "answer")}` : "nothing was asked yet");
}

function showCache(cache) {
  figure(byId("cache-bytes"), cache.bytes, bytes(cache.bytes));
  const limit = cache.max_bytes;
  const room = limit === null ? "no limit set" : `${share(cache.bytes, limit)} of ${bytes(limit)}`;
  put(byId("cache-of"), `${room}, ${bytes(cache.free_bytes)} free on disk, ${plural(cache.blobs, "blob")}`);
  meter(byId("cache-bar"), cache.bytes, limit, room);
  const empty = cache.blobs === 0 && known.status.fills.length === 0 && !sum(known.status.counters.served_bytes);
  byId("first").hidden = !empty;
}

function showFills(fills) {
  figure(byId("fill-count"), fills.length, fills.length ? count(fills.length) : "");
  byId("fills-none").hidden = fills.length > 0;
  const more = fills.length - SHOWN_FILLS;
  show(byId("fills-more"), more > 0 && `and ${plural(more, "other")}`);
  list(byId("fills"), "fill", fills.slice(0, SHOWN_FILLS), (fill) => fill.digest, showFill);
}

function showFill(node, fill) {
  const { name, amount, detail } = parts(node);
  const bar = node.querySelector("progress");
  const sized = fill.size !== null;
  put(name, familiar(fill.repository));
  put(amount, sized ? `${share(fill.received, fill.size)} of ${bytes(fill.size)}` : bytes(fill.received));
  bar.setAttribute("aria-label", `${fill.repository} ${fill.digest.slice(0, 19)}`);
  if (sized) {
    bar.max = fill.size || 1;
    bar.value = fill.received;
  } else bar.removeAttribute("value");
  const speed = fill.seconds > 0 ? `${bytes(fill.received / fill.seconds)}/s` : UNKNOWN;
  put(detail, `${fill.digest.slice(0, 19)}, ${plural(fill.readers, "reader")}, ${speed}`);
}

function showHealth(upstreams) {
  const items = upstreams.map((upstream) => {
    const troubles = troublesOf(upstream);
    const state = element("span", { class: troubles.length ? "badge bad" : "badge" }, troubles.length ? "trouble" : "fine");
    const said = troubles.length ? troubles.join("; ") : quiet(upstream);
    return element("li", {}, element("span", { class: "name" }, upstream.name), state, element("small", {}, said));
  });
  refill(byId("health"), items);
}

function quiet(upstream) {
  const account = upstream.account === null ? "asked anonymously" : `asked as ${upstream.account}, credentials not refused`;
  return `${account}; breaker closed, gates open`;
}

function troublesOf(upstream) {
  const troubles = [];
  if (upstream.breaker_open_seconds !== null) troubles.push(`breaker open for ${seconds(upstream.breaker_open_seconds)}`);
  if (upstream.credentials === "rejected") troubles.push("credentials rejected, asked anonymously");
  return [...troubles, ...closed(upstream)];
}

// Which gates of an upstream are closed, and for how long.
export function closed(gates) {
  return Object.entries(GATES)
    .filter(([gate]) => gates[`${gate}_closed_seconds`] !== null)
    .map(([gate, what]) => `${what} held back for ${seconds(gates[`${gate}_closed_seconds`])}`);
}
