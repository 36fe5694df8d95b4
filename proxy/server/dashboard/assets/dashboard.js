// What the page does: follow /api/events, and ask for lists now and then and when somebody searches.

import { showImages, showImagesAgain, showMoreImages, showTops } from "./lists.js";
import { byId, later, put, show } from "./parts.js";
import { showAges, showAllEvents, showQuota } from "./quota.js";
import { known } from "./server.js";
import { askForSetup, showSetup } from "./setup.js";
import { showStatus } from "./status.js";

const SILENCE = 15000;
const AGAIN = 3000;
const LISTS_EVERY = 15000;
const TYPING = 200;

let source = null;
let silence = 0;

function listen() {
  hangUp();
  source = new EventSource("/api/events");
  source.addEventListener("status", (event) => heard(event, tellStatus));
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

function tellStatus(status) {
  const isFirst = known.status === null;
  showStatus(status);
  if (known.quota) showAges(known.quota);
  if (isFirst) showTops();
}

function drawAgain() {
  if (known.quota && !document.hidden) showQuota(known.quota);
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
byId("images-more").addEventListener("click", showMoreImages);
byId("events-more").addEventListener("click", showAllEvents);
byId("setup-form").addEventListener("submit", (event) => event.preventDefault());
byId("setup-client").addEventListener("change", showSetup);
byId("setup-address").addEventListener("input", later(askForSetup, TYPING));
window.addEventListener("resize", later(drawAgain, TYPING));

listen();
showImages();
askForSetup();
setInterval(() => {
  showTops();
  showImagesAgain();
  drawAgain();
}, LISTS_EVERY);
