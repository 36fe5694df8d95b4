// What the page does: follow /api/events, and ask for lists now and then and when somebody searches.

import { drawCourse } from "./chart.js";
import { bytes, clock, count, moment, plural, seconds, share, sum, UNKNOWN } from "./format.js";
import { byId, element, figure, list, meter, parts, put, show, table, time } from "./parts.js";

const SILENCE = 15000;
const AGAIN = 3000;
const LISTS_EVERY = 15000;
const TYPING = 200;
const SHOWN_FILLS = 12;
const SHOWN_EVENTS = 8;
const PAGE = 20;
const GATES = { pulls: "counted pulls", requests: "all questions" };
const EVENTS = {
  limited: "pull limit",
  abuse: "request limit",
  level: "level",
  stale: "stale",
  vanished: "vanished",
  bypass: "bypass",
  refused: "refused",
};

const known = { status: null, quota: null };
let ahead = 0; // The server's clock less ours, in seconds.

const now = () => Date.now() / 1000 + ahead;

// Figures

function showStatus(status) {
  const isFirst = known.status === null;
  known.status = status;
  ahead = status.now - Date.now() / 1000;
  put(byId("about"), `${status.version}, up ${seconds(status.uptime_seconds)}`);
  showHits(status.counters);
  showCache(status.cache);
  showFills(status.fills);
  showHealth(status.upstreams);
  if (known.quota) showAges(known.quota);
  if (isFirst) showTops();
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

function closed(gates) {
  return Object.entries(GATES)
    .filter(([gate]) => gates[`${gate}_closed_seconds`] !== null)
    .map(([gate, what]) => `${what} held back for ${seconds(gates[`${gate}_closed_seconds`])}`);
}

// Quota

function showQuota(document) {
  const before = known.quota;
  known.quota = document;
  list(byId("quotas"), "quota", document.upstreams, (quota) => quota.upstream, (node, quota) => showUpstream(node, quota, document));
  announceLevels(before, document);
  showSaved(document.upstreams);
  showEvents(document.events);
}

function showUpstream(node, quota, document) {
  const part = parts(node);
  const limited = quota.kind === "limited";
  put(part.name, quota.upstream);
  part.name.id = `quota-${quota.upstream}`;
  node.setAttribute("aria-labelledby", part.name.id);
  put(part.account, quota.account === null ? "anonymous" : quota.account);
  put(part.level, limited ? quota.level : quota.kind === "unlimited" ? "no limit" : "not known yet");
  part.level.dataset.level = limited ? quota.level : "none";
  figure(part.remaining, limited ? quota.remaining : null, limited ? count(quota.remaining) : "");
  put(part.of, wordsOf(quota));
  part.bar.setAttribute("aria-label", `Pulls left at ${quota.upstream}`);
  part.bar.dataset.level = quota.level;
  meter(part.bar, quota.remaining, limited && quota.limit, `${quota.remaining} of ${quota.limit}`);
  show(part.forecast, limited && forecastOf(quota.forecast));
  show(part.bypass, quota.bypass_suspected && bypassOf(quota));
  show(part.gates, closed(quota.gates).join("; "));
  figure(part.hour, quota.pulls_last_hour, count(quota.pulls_last_hour));
  figure(part.day, quota.pulls_last_day, count(quota.pulls_last_day));
  figure(part.waiting, quota.waiting, count(quota.waiting));
  showAge(node, quota);
  part.course.hidden = !limited;
  if (limited) window.requestAnimationFrame(() => drawIn(node, quota, document.governor));
}

function drawIn(node, quota, rules) {
  drawCourse(node.querySelector("svg"), quota, rules, now(), forecastOf(quota.forecast));
}

function wordsOf(quota) {
  if (quota.kind === "unlimited") return "no limit is sent for this account";
  if (quota.kind === "unknown") return "nothing heard of a quota yet";
  const within = quota.window_seconds ? ` in ${seconds(quota.window_seconds)}` : "";
  return `of ${count(quota.limit)} pulls${within} are left`;
}

// The server's own sentence has the times of its own clock; here they are the reader's, as in the chart.
function forecastOf(forecast) {
  const returns = forecast.returns_at === null ? "" : `; some comes back from about ${clock(forecast.returns_at)} on`;
  const over = `the last ${seconds(forecast.measured_over_seconds ?? 0)}`;
  switch (forecast.state) {
    case "falling":
      return `At the rate of ${over}, used up at about ${clock(forecast.exhausted_at)}${rangeOf(forecast)}${returns}.`;
    case "steady":
      return `Not used up at the rate of ${over}${returns}.`;
    case "exhausted":
      return `Used up${returns}.`;
    default:
      return "Too little is known of the rate for a forecast.";
  }
}

function rangeOf({ low, high }) {
  if (low === null) return "";
  if (high === null) return `, at ${clock(low)} at the earliest, and perhaps not at all`;
  return `, between ${clock(low)} and ${clock(high)}`;
}

function bypassOf(quota) {
  return `${plural(quota.unexplained, "pull")} not made by this cache: somebody else uses this account or address.`;
}

function showAges(document) {
  const byName = new Map(document.upstreams.map((quota) => [quota.upstream, quota]));
  for (const node of byId("quotas").children) {
    const quota = byName.get(node.dataset.key);
    if (quota) showAge(node, quota);
  }
}

function showAge(node, quota) {
  const { heard, remaining } = parts(node);
  const age = quota.observed_at === null ? null : now() - quota.observed_at;
  put(heard, age === null ? "never" : `${seconds(age)} ago`);
  remaining.classList.toggle("old", age !== null && age > 3600);
}

function announceLevels(before, document) {
  if (!before) return;
  const levels = new Map(before.upstreams.map((quota) => [quota.upstream, quota.level]));
  const changed = document.upstreams.filter((quota) => levels.has(quota.upstream) && levels.get(quota.upstream) !== quota.level);
  if (changed.length) put(byId("announce"), changed.map((quota) => `Quota of ${quota.upstream}: ${quota.level}`).join(". "));
}

function showSaved(upstreams) {
  const total = (since, field) => upstreams.reduce((sums, each) => sums + each.saved[since][field], 0);
  const both = (id, field, write, under) => {
    figure(byId(id), total("since_start", field), write(total("since_start", field)));
    put(byId(under), `${write(total("ever", field))} ever`);
  };
  both("saved-pulls", "pulls", count, "saved-pulls-ever");
  both("saved-bytes", "bytes", bytes, "saved-bytes-ever");
  figure(byId("outages"), total("since_start", "outages"), count(total("since_start", "outages")));
  put(byId("stale-answers"), `${plural(total("since_start", "stale_answers"), "answer")} from the cache meanwhile`);
}

let allEvents = false;

function showEvents(events) {
  byId("events-none").hidden = events.length > 0;
  byId("events-more").hidden = allEvents || events.length <= SHOWN_EVENTS;
  const items = events.slice(0, allEvents ? events.length : SHOWN_EVENTS).map((event) =>
    element(
      "li",
      {},
      time(event.at, moment(event.at, now())),
      element("span", { class: "badge", "data-kind": event.kind }, EVENTS[event.kind] ?? event.kind),
      element("span", {}, event.text),
    ),
  );
  refill(byId("events"), items);
}

function refill(holder, nodes) {
  const written = nodes.map((node) => node.textContent).join("\n");
  if (holder.dataset.written === written) return;
  holder.dataset.written = written;
  holder.replaceChildren(...nodes);
}

// Lists that are asked for

async function ask(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  const document = await response.json();
  if (!response.ok) throw new Error(document.error ?? `status ${response.status}`);
  return document;
}

async function showTop(by, title, label) {
  const holder = byId(`top-${by}`);
  try {
    const { rows } = await ask(`/api/top?by=${by}&period=24h&order=bytes&limit=8`);
    const columns = [
      [title, "name", (row) => familiar(row.name)],
      ["Pulls", "number", (row) => count(row.pulls)],
      ["Answers", "number answers", (row) => count(row.answers)],
      ["Sent", "number", (row) => bytes(row.bytes)],
    ];
    refill(holder, [rows.length ? table(label, columns, rows) : element("p", { class: "muted" }, "Nobody has pulled anything.")]);
  } catch (error) {
    refill(holder, [element("p", { class: "trouble" }, `Not known: ${error.message}`)]);
  }
}

// As people type it, where Docker Hub is what they get.
function familiar(name) {
  return known.status.upstreams[0].name === "docker.io" ? name.replace(/^docker\.io\/(library\/)?/, "") : name;
}

function showTops() {
  if (document.hidden || !known.status) return;
  showTop("image", "Image", "Top images of 24 hours, by bytes");
  showTop("client", "Client", "Top clients of 24 hours, by bytes");
}

const search = { asked: 0, rows: [], next: null };

async function showImages(after = "") {
  const asked = (search.asked += 1);
  const match = byId("match").value.trim();
  try {
    const page = await ask(`/api/repositories?${new URLSearchParams({ match, after, limit: PAGE })}`);
    if (asked !== search.asked) return;
    search.rows = after ? [...search.rows, ...page.repositories] : page.repositories;
    search.next = page.next;
    showFound(match);
  } catch (error) {
    if (asked === search.asked) put(byId("found"), `Not known: ${error.message}`);
  }
}

function showFound(match) {
  const { rows, next } = search;
  const more = next === null ? "" : ", and there are more";
  const none = match ? "No cached image has such a name." : "Nothing is cached yet. Pull an image through this cache first.";
  put(byId("found"), rows.length ? `${plural(rows.length, "repository", "repositories")}${more}` : none);
  byId("images-more").hidden = next === null;
  const columns = [
    ["Image", "name", (row) => row.name],
    ["Tags", "tags", tagsOf],
    ["Size", "number", (row) => bytes(row.bytes)],
    ["Last use", "number", (row) => (row.used_at === null ? UNKNOWN : `${seconds(now() - row.used_at)} ago`)],
    ["Remarks", "marks", marksOf],
  ];
  refill(byId("images"), rows.length ? [table("Cached images", columns, rows)] : []);
}

function tagsOf(row) {
  const shown = row.tags.slice(0, 4).join(", ");
  const more = row.tag_count - Math.min(4, row.tags.length);
  return more > 0 ? `${shown} and ${count(more)} more` : shown || "by digest only";
}

function marksOf(row) {
  const marks = [];
  if (row.pinned_at !== null) marks.push("pinned");
  if (row.vanished_at !== null) marks.push("gone upstream");
  else if (row.vanished_tags) marks.push(`${plural(row.vanished_tags, "tag")} gone upstream`);
  return marks.join(", ");
}

function later(work, wait) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, wait);
  };
}

// Setting up clients

let guides = [];

async function askForSetup() {
  const address = byId("setup-address").value.trim();
  try {
    const answer = await ask(`/api/setup?${new URLSearchParams({ address })}`);
    guides = answer.clients;
    put(byId("setup-error"), "");
    if (!address) byId("setup-address").value = answer.url.replace("http://", "");
    if (!byId("setup-client").options.length) {
      byId("setup-client").append(...guides.map((guide) => element("option", { value: guide.name }, guide.name)));
    }
    showSetup();
  } catch (error) {
    put(byId("setup-error"), `No lines for this address: ${error.message}`);
  }
}

function showSetup() {
  const guide = guides.find((each) => each.name === byId("setup-client").value);
  if (!guide) return;
  const commands = [["Then", guide.restart], ["Check", guide.check]].filter(([, command]) => command);
  byId("setup-lines").replaceChildren(
    element("p", {}, guide.summary),
    ...guide.parts.map((part) => snippet(part.path ?? part.about, part.path ? part.about : "", part.content)),
    ...commands.map(([title, command]) => snippet(title, "", command)),
    ...guide.notes.map((note) => element("p", { class: "muted" }, note)),
  );
}

function snippet(title, about, content) {
  const node = byId("snippet").content.firstElementChild.cloneNode(true);
  const part = parts(node);
  const button = node.querySelector("button");
  put(part.title, title);
  show(part.about, about);
  put(node.querySelector("code"), content);
  node.querySelector("pre").setAttribute("aria-label", title);
  button.setAttribute("aria-label", `Copy: ${title}`);
  button.addEventListener("click", () => copy(button, node.querySelector("code")));
  return node;
}

// The clipboard is for https and localhost only; elsewhere the lines are selected, to be copied by hand.
async function copy(button, code) {
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(code.textContent);
  } catch {
    window.getSelection().selectAllChildren(code);
    said = document.execCommand("copy") ? "Copied" : "Selected: copy it with your keyboard";
  }
  put(button, said);
  put(byId("announce"), said);
  setTimeout(() => put(button, "Copy"), 2500);
}

// The line to the server

let source = null;
let silence = 0;

function listen() {
  hangUp();
  source = new EventSource("/api/events");
  source.addEventListener("status", (event) => heard(event, showStatus));
  source.addEventListener("quota", (event) => heard(event, showQuota));
  source.addEventListener("error", lost);
  awaitNews(SILENCE);
}

function heard(event, use) {
  put(byId("connection"), "live");
  byId("connection").dataset.state = "live";
  show(byId("lost"), "");
  awaitNews(SILENCE);
  use(JSON.parse(event.data));
}

function lost() {
  put(byId("connection"), "connection lost");
  byId("connection").dataset.state = "lost";
  show(byId("lost"), "Connection lost, trying again. What you see is what was known last.");
  if (!source || source.readyState === EventSource.CLOSED) awaitNews(AGAIN);
}

function awaitNews(wait) {
  clearTimeout(silence);
  silence = setTimeout(() => {
    lost();
    listen();
  }, wait);
}

function hangUp() {
  clearTimeout(silence);
  source?.close();
  source = null;
}

// Nobody looks at a hidden page, so nothing is asked for it.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hangUp();
  else {
    listen();
    showTops();
  }
});

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  showImages();
});
byId("match").addEventListener("input", later(() => showImages(), TYPING));
byId("images-more").addEventListener("click", () => showImages(search.next));
byId("events-more").addEventListener("click", () => {
  allEvents = true;
  showEvents(known.quota.events);
});
byId("setup-form").addEventListener("submit", (event) => event.preventDefault());
byId("setup-client").addEventListener("change", showSetup);
byId("setup-address").addEventListener("input", later(askForSetup, TYPING));
window.addEventListener("resize", later(() => known.quota && showQuota(known.quota), TYPING));

listen();
showImages();
askForSetup();
setInterval(showTops, LISTS_EVERY);
setInterval(() => !document.hidden && search.rows.length <= PAGE && showImages(), LISTS_EVERY);
