// What the server has said last, its clock, and questions to it.

export const known = { status: null, quota: null };

let ahead = 0; // The server's clock less ours, in seconds.

export function setClock(epoch) {
  ahead = epoch - Date.now() / 1000;
}

export function now() {
  return Date.now() / 1000 + ahead;
}

// As people type it, where Docker Hub is what they get.
export function familiar(name) {
  return known.status?.upstreams[0]?.name === "docker.io" ? name.replace(/^docker\.io\/(library\/)?/, "") : name;
}

export async function ask(path) {
  const response = await fetch(path, { headers: { Accept: "application/json" } });
  const document = await response.json();
  if (!response.ok) throw new Error(document.error ?? `status ${response.status}`);
  return document;
}
