// Lists that are asked for: who pulls most, and what is stored.

import { bytes, count, plural, seconds, UNKNOWN } from "./format.js";
import { byId, element, put, refill, table } from "./parts.js";
import { ask, familiar, known, now } from "./server.js";

const PAGE = 20;

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

export function showTops() {
  if (document.hidden || !known.status) return;
  showTop("image", "Image", "Top images of 24 hours, by bytes");
  showTop("client", "Client", "Top clients of 24 hours, by bytes");
}

const search = { asked: 0, rows: [], next: null };

export async function showImages(after = "") {
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

export function showMoreImages() {
  showImages(search.next);
}

// What is new shows by itself, unless somebody has gone further.
export function showImagesAgain() {
  if (!document.hidden && search.rows.length <= PAGE) showImages();
}
