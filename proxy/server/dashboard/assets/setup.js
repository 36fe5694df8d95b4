// The lines for each client, and their way to the clipboard.

import { byId, element, parts, put, show } from "./parts.js";
import { ask } from "./server.js";

let guides = [];

export async function askForSetup() {
  const address = byId("setup-address").value.trim();
  try {
    const answer = await ask(`/api/setup?${new URLSearchParams({ address })}`);
    guides = answer.clients;
    put(byId("setup-error"), "");
    if (!address) byId("setup-address").value = answer.url.replace(/^https?:\/\//, "");
    if (!byId("setup-client").options.length) {
      byId("setup-client").append(...guides.map((guide) => element("option", { value: guide.name }, guide.name)));
    }
    showSetup();
  } catch (error) {
    put(byId("setup-error"), `No lines for this address: ${error.message}`);
  }
}

export function showSetup() {
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
