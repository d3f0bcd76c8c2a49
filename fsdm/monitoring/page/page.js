// The page: events bring parts, and each part is drawn where it differs. Texts are placed as text, and as nothing else.
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function make(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Makes the children of a node those of the items, by key: what stays is kept, with its focus and its scroll.
function match(parent, items, keyOf, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, number) => {
    const key = String(keyOf(item, number));
    let child = old.get(key);
    if (child === undefined) {
      child = create(item);
      child.dataset.key = key;
    }
    old.delete(key);
    update(child, item);
    if (parent.children[number] !== child) parent.insertBefore(child, parent.children[number] || null);
  });
  for (const child of old.values()) child.remove();
}

const short = (id) => id.slice(0, 12) + "…";

async function ask(path, fields) {
  const answer = await fetch(path + "?" + new URLSearchParams(fields));
  const document_ = await answer.json().catch(() => ({ error: "the answer cannot be read", hint: "" }));
  if (!answer.ok) throw Object.assign(new Error(document_.error), { hint: document_.hint });
  return document_;
}

// ---- how it stands

const draw = {};

draw.trouble = (text) => { troubled = text; drawAlerts(); };

let troubled = "", alerts = [];

function drawAlerts() {
  const lines = troubled ? [troubled, ...alerts] : alerts;
  match(byId("alerts"), lines, (line) => line, () => make("li"), write);
  document.body.classList.toggle("lost", Boolean(troubled));
}

draw.head = (head) => {
  write(byId("root"), head.root);
  document.title = "fsdm: " + head.root;
  write(byId("says"), head.says);
  write(byId("facts"), head.facts.join(" · "));
  alerts = head.alerts;
  drawAlerts();
  match(byId("tiles"), head.tiles, (tile) => tile.name, (tile) => {
    const made = make("div");
    made.append(make("dt", "", tile.name), make("dd"), make("dd"));
    return made;
  }, (made, tile) => {
    made.className = tile.none ? "none" : tile.name === "failing" ? "bad" : "";
    write(made.children[1], tile.number);
    write(made.children[2], tile.more);
  });
};

// ---- the last hour

draw.history = (history) => {
  match(byId("plots"), history.plots, (plot) => plot.name, makePlot, (figure, plot) => updatePlot(figure, plot, history));
};

const plotted = new WeakMap();

function makePlot(plot) {
  const figure = make("figure");
  const caption = make("figcaption");
  caption.append(make("span", "", plot.name), make("b"));
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 1000 100");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("tabindex", "0");
  for (const kind of ["area", "line", "base", "at"]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", kind);
    svg.append(path);
  }
  svg.children[2].setAttribute("d", "M0 100H1000");
  const span = make("div", "span");
  span.append(make("span", "", "an hour ago"), make("span", "top"), make("span", "", "now"));
  figure.append(caption, svg, span);
  const nearest = (event) => {
    const box = svg.getBoundingClientRect(), { x, plot: drawn } = plotted.get(figure);
    const at = (event.clientX - box.left) / box.width;
    let best = -1;
    x.forEach((one, number) => { if (drawn.y[number] !== null && (best < 0 || Math.abs(one - at) < Math.abs(x[best] - at))) best = number; });
    point(figure, best);
  };
  svg.addEventListener("pointermove", nearest);
  svg.addEventListener("pointerleave", () => point(figure, -1));
  svg.addEventListener("blur", () => point(figure, -1));
  svg.addEventListener("keydown", (event) => {
    const { x, plot: drawn, at } = plotted.get(figure), step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    let to = at < 0 ? (step < 0 ? x.length - 1 : 0) : at + step;
    while (to >= 0 && to < x.length && drawn.y[to] === null) to += step;
    if (to >= 0 && to < x.length) point(figure, to);
  });
  return figure;
}

function updatePlot(figure, plot, history) {
  const at = plotted.has(figure) ? plotted.get(figure).at : -1;
  plotted.set(figure, { plot, x: history.x, times: history.at, at });
  let line = "", area = "", open = null;
  history.x.forEach((x, number) => {
    const y = plot.y[number];
    const left = (1000 * Math.max(x, 0)).toFixed(1), high = y === null ? "" : (100 - 96 * y).toFixed(1);
    if (y !== null) {
      line += (open === null ? "M" : "L") + left + " " + high;
      area += (open === null ? "M" + left + " 100L" : "L") + left + " " + high;
      open = left;
    }
    if (open !== null && (y === null || number === history.x.length - 1)) {
      if (y !== null && line.lastIndexOf("M") === line.length - (left + " " + high).length - 1) line += "h2";  // a single point
      area += "L" + open + " 100Z";
      open = null;
    }
  });
  const svg = figure.children[1];
  svg.children[0].setAttribute("d", area);
  svg.children[1].setAttribute("d", line);
  const known = plot.says.filter(Boolean), latest = known.length ? known[known.length - 1] : "not known yet";
  svg.setAttribute("aria-label", plot.name + " over the last hour: " + latest + (plot.top ? ", at most " + plot.top : "") + ". Arrow keys go along.");
  write(figure.querySelector(".top"), plot.top ? "at most " + plot.top : "");
  point(figure, at < history.x.length ? at : -1);
}

function point(figure, at) {
  const known = plotted.get(figure);
  known.at = at;
  const path = figure.children[1].children[3], says = known.plot.says;
  if (at >= 0 && says[at]) {
    path.setAttribute("d", "M" + (1000 * known.x[at]).toFixed(1) + " 0V100");
    write(figure.querySelector("b"), known.times[at] + "  " + says[at]);
  } else {
    path.setAttribute("d", "");
    write(figure.querySelector("b"), says.findLast(Boolean) || "");
  }
}

// ---- what is coming, failing, waiting, retiring

const LISTS = [["coming", "Coming"], ["failing", "Failing"], ["waiting", "Waiting for room"], ["retiring", "Retiring"]];

draw.lists = (lists) => {
  const shown = LISTS.filter(([name]) => lists[name].count || lists[name].queued);
  byId("lists").hidden = shown.length === 0;
  match(byId("lists"), shown, ([name]) => name, ([name, title]) => {
    const made = make("div"), head = make("h2", "words", title);
    head.append(make("span"));
    made.append(head, make("ul"), make("p", "rest"));
    return made;
  }, (made, [name]) => {
    const list = lists[name];
    const queued = list.queued || 0;
    write(made.querySelector("h2 span"), (list.count + queued).toLocaleString("en"));
    match(made.children[1], list.rows, (row) => row.id, (row) => makeRow(row, name), updateRow);
    const rest = [];
    if (list.more) rest.push("and " + list.more.toLocaleString("en") + " more");
    if (queued) rest.push(queued.toLocaleString("en") + " wanted, waiting for their turn");
    write(made.children[2], rest.join("; "));
    made.children[2].hidden = rest.length === 0;
  });
  if (panel.open) explainAgain();
};

function makeRow(row, name) {
  const item = make("li"), button = make("button", "row");
  button.type = "button";
  button.append(make("span", "id", short(row.id)), make("span", "where"));
  if (name === "coming") {
    const meter = make("span", "meter");
    meter.append(make("i"), make("b"), make("span", "says"));
    button.append(meter);
  } else {
    button.append(make("span", "says"));
  }
  button.append(make("span", "more"));
  button.addEventListener("click", () => openChunk(row.id));
  item.append(button);
  return item;
}

function updateRow(item, row) {
  write(item.querySelector(".where"), row.where);
  write(item.querySelector(".says"), row.says);
  write(item.querySelector(".more"), row.more);
  const bar = item.querySelector(".meter i");
  if (bar) {
    bar.classList.toggle("unknown", row.share === null);
    bar.style.setProperty("--share", 100 * (row.share || 0));
    write(item.querySelector(".meter b"), row.share === null ? "?" : Math.floor(100 * row.share) + "%");
  }
}

// ---- the maps: each is asked for while it is seen, and again when its dataset has another version

const sections = new Map();  // dataset → { node, version, drawn, from, to, isSeen, isAsked }

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const section = sections.get(entry.target.dataset.key);
    if (section) { section.isSeen = entry.isIntersecting; refresh(section); }
  }
}, { rootMargin: "200px" });

const FEW = 3;  // so many maps stand above the lists, more of them below

draw.datasets = (found) => {
  const lists = byId("lists"), isAbove = found.datasets.length > FEW;
  if (isAbove !== (lists.nextElementSibling !== null)) lists.parentElement.insertBefore(lists, isAbove ? byId("mapped") : null);
  const maps = byId("maps");
  const items = found.datasets.length || found.unplaced.length ? found.datasets : [{ id: "", says: "No chunk is here, and none is wanted." }];
  match(maps, [...items, ...(found.unplaced.length ? [{ id: "unplaced", found }] : [])], (item) => item.id, makeSection, updateSection);
  for (const [id, section] of sections) if (!section.node.isConnected) { seen.unobserve(section.node); sections.delete(id); }
};

function makeSection(item) {
  const node = make("section");
  if (item.id === "") { node.append(make("p", "faint")); return node; }
  if (item.found) { node.append(make("h2", "words"), make("ul", "unplaced"), make("p", "rest")); return node; }
  const title = make("div", "title"), name = make("h2"), zoom = make("div", "zoom");
  name.id = "d" + item.id;
  node.setAttribute("aria-labelledby", name.id);
  title.append(name, zoom);
  const section = { id: item.id, node, version: 0, drawn: "", from: null, to: null, map: null, isSeen: false, isAsked: false };
  for (const [label, what, act] of [
    ["‹", "To the blocks before", () => move(section, -1)], ["−", "Zoom out", () => scale(section, 2)], ["+", "Zoom in", () => scale(section, 0.5)],
    ["›", "To the blocks after", () => move(section, 1)], ["all", "Show all blocks", () => zoomTo(section, null, null)],
  ]) {
    const button = make("button", "", label);
    button.type = "button";
    button.title = what;
    button.setAttribute("aria-label", what);
    button.addEventListener("click", act);
    zoom.append(button);
  }
  const band = make("div", "band"), part = make("div", "part whole"), axis = make("div", "axis");
  band.setAttribute("role", "group");
  band.setAttribute("aria-label", "Blocks of dataset " + item.id.slice(0, 12) + "; arrow keys go along, Enter opens, + and − zoom, 0 shows all");
  part.append(make("b"));
  const below = make("div", "below"), scroll = make("div", "scroll");
  scroll.append(make("table", "kinds"));
  scroll.firstChild.append(make("tbody"));
  below.append(scroll, make("div", "troubles"));
  node.append(title, make("p", "faint extent", item.says), band, part, axis, below);
  listen(section, band);
  sections.set(item.id, section);
  requestAnimationFrame(() => seen.observe(node));
  return node;
}

function updateSection(node, item) {
  if (item.id === "") return write(node.firstChild, item.says);
  if (item.found) {
    const found = item.found, count = found.unplaced.length + found.more;
    write(node.children[0], count + (count === 1 ? " chunk" : " chunks") + " on no map: what blocks they cover is not known");
    match(node.children[1], found.unplaced, (chunk) => chunk.id, (chunk) => {
      const line = make("li"), button = make("button", "row");
      button.addEventListener("click", () => openChunk(chunk.id));
      line.append(button);
      return line;
    }, (line, chunk) => write(line.firstChild, chunk.says));
    write(node.children[2], found.more ? "and " + found.more + " more" : "");
    return;
  }
  const section = sections.get(item.id), name = node.querySelector("h2");
  write(name, item.name ? item.name + " (" + item.id + ")" : item.id);
  section.version = item.version;
  refresh(section);
}

async function refresh(section) {
  const wanted = () => [section.version, section.from, section.to].join(" ");
  if (!section.isSeen || section.isAsked || section.drawn === wanted()) return;
  section.isAsked = true;
  const asked = wanted();
  const fields = { dataset: section.id };
  if (section.from !== null) Object.assign(fields, { from: section.from, to: section.to });
  try {
    drawMap(section, await ask("/map", fields));
    section.drawn = asked;
  } catch (error) {
    write(section.node.querySelector(".extent"), error.message);
    await new Promise((done) => setTimeout(done, 2000));
  } finally {
    section.isAsked = false;
  }
  refresh(section);  // what has come meanwhile
}

const marked = new WeakMap();  // node → its mark

function drawMap(section, map) {
  section.map = map;
  const { node } = section, band = node.querySelector(".band"), axis = node.querySelector(".axis"), part = node.querySelector(".part");
  const isWhole = map.from === map.start && map.to === map.end;
  write(node.querySelector(".extent"), map.says + (isWhole ? "" : "; shown: [" + map.from + ", " + map.to + ")"));
  const marks = [...band.querySelectorAll("i")];
  const focused = marks.indexOf(document.activeElement);
  map.marks.forEach((mark, number) => {
    let one = marks[number];
    if (!one) {
      one = make("i");
      one.setAttribute("role", "img");
      band.append(one);
    }
    marked.set(one, mark);
    const kind = mark.kind + (mark.below ? " over " + mark.below + "-below" : mark.w > 100 / 120 ? " wide" : "");
    if (one.className !== kind) one.className = kind;
    one.style.setProperty("--x", mark.x);
    one.style.setProperty("--w", mark.w);
    one.setAttribute("aria-label", mark.says);
    one.tabIndex = number === Math.max(focused, 0) ? 0 : -1;
  });
  marks.slice(map.marks.length).forEach((one) => one.remove());
  const kept = map.marks.length - 1;
  if (focused > kept) band.querySelectorAll("i")[kept].focus();
  if (!tip.hidden) { const under = band.querySelector("i:hover, i:focus"); if (under) show(under); }
  part.classList.toggle("whole", isWhole);
  part.firstChild.style.setProperty("--x", 100 * map.window[0]);
  part.firstChild.style.setProperty("--w", 100 * map.window[1]);
  match(axis, map.ticks, (tick, number) => number, () => make("span"), (span, tick) => {
    span.className = span.dataset.key === "0" || Number(span.dataset.key) === map.ticks.length - 1 ? "" : "between";
    write(span, tick);
  });
  const [before, out, into, after, all] = node.querySelectorAll(".zoom button");
  before.disabled = map.from === map.start;
  after.disabled = map.to === map.end;
  out.disabled = all.disabled = isWhole;
  into.disabled = BigInt(map.to) - BigInt(map.from) <= 1n;
  match(node.querySelector(".kinds tbody"), map.kinds, (row) => row.kind, (row) => {
    const made = make("tr"), name = make("th", "", row.kind);
    name.scope = "row";
    name.prepend(make("b", "swatch " + row.kind));
    made.append(name, ...row.cells.map(() => make("td")));
    return made;
  }, (made, row) => row.cells.forEach((cell, number) => write(made.children[number + 1], cell)));
  match(node.querySelector(".troubles"), map.troubles, (list) => list.kind, (list) => {
    const made = make("details"), scroll = make("div", "scroll"), table = make("table");
    made.open = list.rows.length <= 6;
    table.append(make("tbody"));
    scroll.append(table, make("p", "rest"));
    made.append(make("summary"), scroll);
    return made;
  }, (made, list) => {
    write(made.firstChild, list.title);
    match(made.querySelector("tbody"), list.rows, ([where]) => where, () => {
      const row = make("tr");
      row.append(make("td"), make("td"));
      return row;
    }, (row, cells) => cells.forEach((cell, number) => write(row.children[number], cell)));
    write(made.querySelector(".rest"), list.more ? "and " + list.more.toLocaleString("en") + " more: fsdm map --json tells all" : "");
  });
}

function zoomTo(section, from, to) {
  if (from === null) {
    section.from = section.to = null;
  } else {
    const start = BigInt(section.map.start), end = BigInt(section.map.end);
    let first = from < start ? start : from, last = to > end ? end : to;
    if (last <= first) { if (first >= end) first = end - 1n; last = first + 1n; }
    [section.from, section.to] = first === start && last === end ? [null, null] : [String(first), String(last)];
  }
  refresh(section);
}

function scale(section, factor, at = 0.5) {
  if (!section.map) return;
  const from = BigInt(section.map.from), blocks = BigInt(section.map.to) - from;
  let wide = factor < 1 ? blocks / 2n : blocks * 2n;
  if (wide < 1n) wide = 1n;
  const first = from + (blocks - wide) * BigInt(Math.round(at * 1000)) / 1000n;
  zoomTo(section, first, first + wide);
}

function move(section, step) {
  if (!section.map) return;
  const from = BigInt(section.map.from), to = BigInt(section.map.to), start = BigInt(section.map.start), end = BigInt(section.map.end);
  let by = (to - from) / 2n || 1n;
  if (step < 0) { by = from - start < by ? from - start : by; by = -by; } else { by = end - to < by ? end - to : by; }
  zoomTo(section, from + by, to + by);
}

function choose(section, mark) {
  if (mark.ids.length === 1) return openChunk(mark.ids[0]);
  if (mark.ids.length > 1) return openHits(mark.ids);
  zoomTo(section, BigInt(mark.from), BigInt(mark.to));
}

// A click chooses a mark, a drag chooses blocks.
function listen(section, band) {
  let began = null, box = null;
  const at = (event) => {
    const { left, width } = band.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - left) / width, 0), 1);
  };
  const end = () => { if (box) box.remove(); began = box = null; };
  band.addEventListener("pointerdown", (event) => { if (event.button === 0 && section.map) began = at(event); });
  band.addEventListener("pointermove", (event) => {
    if (began === null) return;
    const now = at(event), { width } = band.getBoundingClientRect();
    if (!box && Math.abs(now - began) * width > 6) {
      box = make("div", "drag");
      band.append(box);
      band.setPointerCapture(event.pointerId);
      hide();
    }
    if (box) {
      box.style.left = 100 * Math.min(began, now) + "%";
      box.style.width = 100 * Math.abs(now - began) + "%";
    }
  });
  band.addEventListener("pointercancel", end);
  band.addEventListener("pointerup", (event) => {
    if (began === null) return;
    const now = at(event), isDrag = box !== null, [left, right] = [Math.min(began, now), Math.max(began, now)];
    end();
    if (!isDrag) return;  // the click comes to the mark; after a drag, to the band, which has captured the pointer
    const from = BigInt(section.map.from), blocks = BigInt(section.map.to) - from;
    const block = (share) => from + blocks * BigInt(Math.round(share * 1e6)) / 1000000n;
    zoomTo(section, block(left), block(right));
  });
  band.addEventListener("click", (event) => {
    const mark = marked.get(event.target);
    if (mark) choose(section, mark);
  });
  band.addEventListener("keydown", (event) => {
    const mark = marked.get(event.target);
    const act = {
      Enter: () => mark && choose(section, mark), " ": () => mark && choose(section, mark),
      "+": () => scale(section, 0.5, mark ? (mark.x + mark.w / 2) / 100 : 0.5), "-": () => scale(section, 2), "0": () => zoomTo(section, null, null),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  });
}

// ---- one chunk, in the words of `fsdm explain`

const panel = byId("chunk");
let shownId = null, asking = false, timer = null;

function openChunk(id) {
  shownId = id;
  write(byId("chunk-id"), id);
  write(byId("chunk-state"), "…");
  byId("chunk-said").replaceChildren();
  hide();
  if (!panel.open) panel.showModal();
  history.replaceState(null, "", "#" + id);
  explainAgain();
}

async function explainAgain() {
  if (asking || !panel.open) return;
  asking = true;
  clearTimeout(timer);
  const id = shownId;
  try {
    const found = await ask("/chunk", { id });
    if (id === shownId) drawChunk(found);
  } catch (error) {
    if (id === shownId) write(byId("chunk-state"), error.message);
  }
  await new Promise((done) => setTimeout(done, 700));  // however often things change
  asking = false;
  if (panel.open) timer = setTimeout(explainAgain, id === shownId ? 5000 : 0);
}

function drawChunk(found) {
  write(byId("chunk-state"), found.state + (found.where ? " · blocks " + found.where : ""));
  const lines = found.said.flatMap(({ title, sentences }) => [["dt", title], ...sentences.map((line) => ["dd", line])]);
  match(byId("chunk-said"), lines, ([tag], number) => tag + number, ([tag]) => make(tag), (node, [, text]) => write(node, text));
}

panel.addEventListener("close", () => {
  if (panel.open) return;  // the event comes later, and another chunk was opened meanwhile
  shownId = null;
  clearTimeout(timer);
  history.replaceState(null, "", location.pathname);
});
panel.addEventListener("click", (event) => {
  const { left, right, top, bottom } = panel.getBoundingClientRect();
  if (event.target === panel && (event.clientX < left || event.clientX > right || event.clientY < top || event.clientY > bottom)) panel.close();
});

// ---- the search

const query = byId("query"), hits = byId("hits");
let typed = 0;

function showHits(items) {
  match(hits, items, (item, number) => number + (item.id || ""), (item) => {
    const line = make("li");
    if (!item.id) return line;
    const button = make("button");
    button.type = "button";
    button.addEventListener("click", () => { closeHits(); openChunk(item.id); });
    line.append(button);
    return line;
  }, (line, item) => write(line.firstChild && item.id ? line.firstChild : line, item.says));
  hits.hidden = items.length === 0;
}

function closeHits() {
  typed += 1;
  hits.hidden = true;
}

async function find() {
  const number = typed += 1, text = query.value.trim();
  if (!text) return showHits([]);
  await new Promise((done) => setTimeout(done, 150));
  if (number !== typed) return;
  let items;
  try {
    const found = await ask("/find", { q: text });
    items = found.hits.map((hit) => ({ id: hit.id, says: short(hit.id) + "  " + hit.state + "  " + hit.where }));
    if (found.hint) items = [{ says: found.hint }];
    if (found.more) items.push({ says: "and more" });
  } catch (error) {
    items = [{ says: error.message }];
  }
  if (number === typed) showHits(items);
}

function openHits(ids) {
  query.focus();
  typed += 1;
  showHits(ids.map((id) => ({ id, says: id })));
  window.scrollTo(0, 0);
}

query.addEventListener("input", find);
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const first = hits.querySelector("button");
  if (first && !hits.hidden) first.click(); else find();
});
byId("search").addEventListener("keydown", (event) => {
  const all = [query, ...hits.querySelectorAll("button")], step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (event.key === "Escape" && !hits.hidden) { closeHits(); query.focus(); event.preventDefault(); }
  if (step === undefined || hits.hidden) return;
  event.preventDefault();
  all[(all.indexOf(document.activeElement) + step + all.length) % all.length].focus();
});
document.addEventListener("pointerdown", (event) => { if (!byId("search").contains(event.target)) closeHits(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && !panel.open && document.activeElement !== query) { event.preventDefault(); query.focus(); query.select(); }
});

// ---- events: while the page is seen, and again after a break

let stream = null, later = null;

function connect() {
  clearTimeout(later);
  if (stream || document.hidden) return;
  stream = new EventSource("/events");
  stream.onopen = () => live(true, "live");
  stream.onerror = () => {
    live(false, "not connected, trying again …");
    disconnect();
    later = setTimeout(connect, 2000);
  };
  for (const name of Object.keys(draw)) stream.addEventListener(name, (event) => draw[name](JSON.parse(event.data)));
}

function disconnect() {
  if (stream) stream.close();
  stream = null;
}

function live(is, text) {
  byId("live").className = is ? "on" : "";
  write(byId("live"), text);
  document.body.classList.toggle("lost", !is || Boolean(troubled));
}

document.addEventListener("visibilitychange", () => { if (document.hidden) disconnect(); else connect(); });
connect();
if (/^#[0-9a-f]{64}$/.test(location.hash)) openChunk(location.hash.slice(1));
