// Pieces of the page. What comes from the cache goes in as text: names of repositories are the clients' words.

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// A figure for people, and as it is for whoever reads `value`.
export function figure(node, value, written) {
  if (value === null || value === undefined) node.removeAttribute("value");
  else node.setAttribute("value", value);
  put(node, written);
}

// Leaves the page alone where nothing has changed, and so what somebody has selected there.
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, text) {
  node.hidden = !text;
  put(node, text || "");
}

export function meter(node, part, whole, written) {
  node.hidden = !whole;
  if (!whole) return;
  node.setAttribute("aria-valuemin", 0);
  node.setAttribute("aria-valuemax", whole);
  node.setAttribute("aria-valuenow", Math.min(part, whole));
  node.setAttribute("aria-valuetext", written);
  node.firstElementChild.style.width = `${Math.min(100, (100 * part) / whole)}%`;
}

// One node for each item, made from a template and kept while its key stays.
export function list(holder, template, items, keyOf, fill) {
  const old = new Map([...holder.children].map((node) => [node.dataset.key, node]));
  const nodes = items.map((item) => {
    const key = keyOf(item);
    const node = old.get(key) ?? byId(template).content.firstElementChild.cloneNode(true);
    node.dataset.key = key;
    fill(node, item);
    return node;
  });
  const same = nodes.length === holder.children.length && nodes.every((node, at) => holder.children[at] === node);
  if (!same) holder.replaceChildren(...nodes);
}

export function parts(node) {
  return Object.fromEntries([...node.querySelectorAll("[data-part]")].map((part) => [part.dataset.part, part]));
}

// `columns` are [title, class, cell of a row]; the first cell is the head of its row.
export function table(label, columns, rows) {
  const head = element("tr", {}, ...columns.map(([title, kind]) => element("th", { scope: "col", class: kind }, title)));
  const body = rows.map((row) =>
    element(
      "tr",
      {},
      ...columns.map(([, kind, cell], at) =>
        at === 0 ? element("th", { scope: "row", class: kind }, cell(row)) : element("td", { class: kind }, cell(row)),
      ),
    ),
  );
  return element("table", { "aria-label": label }, element("thead", {}, head), element("tbody", {}, ...body));
}

export function time(epoch, written) {
  return element("time", { datetime: new Date(epoch * 1000).toISOString() }, written);
}

// Leaves the nodes alone while they say the same.
export function refill(holder, nodes) {
  const written = nodes.map((node) => node.textContent).join("\n");
  if (holder.dataset.written === written) return;
  holder.dataset.written = written;
  holder.replaceChildren(...nodes);
}

export function later(work, wait) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, wait);
  };
}
