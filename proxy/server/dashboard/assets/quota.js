// The quota of each upstream, what was saved, and what has happened.

import { drawCourse } from "./chart.js";
import { bytes, clock, count, moment, plural, seconds } from "./format.js";
import { byId, element, figure, list, meter, parts, put, refill, show, time } from "./parts.js";
import { known, now } from "./server.js";
import { closed } from "./status.js";

const SHOWN_EVENTS = 8;
const EVENTS = {
  limited: "pull limit",
  abuse: "request limit",
};

export function showQuota(document) {
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

export function showAges(document) {
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

export function showAllEvents() {
  allEvents = true;
  showEvents(known.quota.events);
}
