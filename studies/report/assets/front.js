// The designs of a search: two linked plots to brush, a list of what is brushed, a click to a sheet.
"use strict";
const MEASURES = {
  latency: ["latency, ms", (item) => item.latency_ms],
  energy: ["energy, uJ a pixel", (item) => item.energy_uj_per_pixel],
  fabric: ["scarcest part of the fabric, % used", (item) => 100 * fabricShare(item)],
};

function fabricShare(item) {
  const shares = Object.entries(item.resources).map(
    ([name, used]) => used / (DATA.search.available[name] || Infinity));
  return Math.max(0, ...shares);
}

function designName(found) {
  return found === DATA.search.start_number ? "start" : `design ${found}`;
}

// What a design has other than the one the search began with; nothing where that was not tried.
function changes(item) {
  const first = DATA.search.designs[DATA.search.start_number];
  return Object.entries(item.choice).filter(([name, value]) => first
    && first.choice[name] !== value)
    .map(([name, value]) => `${name} ${value}`);
}

function frontGroups() {
  const found = DATA.search;
  const figures = found.designs.filter((item) => item.latency_ms !== null);
  const front = new Set(found.front);
  const chosen = figures.filter((item) => item.number === found.chosen_number);
  const start = figures.filter((item) => item.number === found.start_number);
  const marked = new Set([...chosen, ...start]);
  return [
    ["tried", figures.filter((item) => !front.has(item.number) && !marked.has(item)), "--ghost",
      "circle", 6],
    ["on the front", figures.filter((item) => front.has(item.number) && !marked.has(item)),
      "--accent", "circle", 9],
    ["start", start, "--text", "diamond", 12],
    ["chosen", chosen, "--mark", "star", 15],
  ].filter(([, items]) => items.length);
}

function frontPlot(axes) {
  const wanted = [MEASURES[axes[0]], MEASURES[axes[1]]];
  const data = frontGroups().map(([name, items, tint, symbol, size]) => ({
    type: "scatter", mode: "markers", name, x: items.map(wanted[0][1]), y: items.map(wanted[1][1]),
    customdata: items.map((item) => item.number),
    marker: { color: colour(tint), symbol, size, line: { width: 0.5, color: colour("--back") } },
    unselected: { marker: { opacity: 0.15 } },
    text: items.map((item) => plain(`${designName(item.number)}\n${number(item.latency_ms)} ms, `
      + `${number(item.energy_uj_per_pixel)} uJ a pixel, ${number(100 * fabricShare(item), 3)} % `
      + `of the fabric\n${changes(item).slice(0, 8).join("\n")}`).replace(/\n/g, "<br>")),
    hovertemplate: "%{text}<extra></extra>",
  }));
  return { data, layout: layout(narrow() ? 320 : 400, { dragmode: "select", hovermode: "closest",
    xaxis: axis(wanted[0][0], { type: "log" }),
    yaxis: axis(wanted[1][0], { type: axes[1] === "fabric" ? "linear" : "log" }) }) };
}

function brushed(nodes, event, list) {
  const kept = event && event.points && event.points.length
    ? new Set(event.points.map((point) => point.customdata)) : null;
  for (const node of nodes) {
    const picked = node.data.map((trace) => kept === null ? null
      : trace.customdata.map((found, place) => [found, place])
        .filter(([found]) => kept.has(found)).map(([, place]) => place));
    Plotly.restyle(node, { selectedpoints: picked });
  }
  list(kept);
}

function designList(kept) {
  const found = DATA.search;
  const names = kept === null ? found.front : [...kept];
  const items = names.map((place) => found.designs[place])
    .sort((one, other) => one.latency_ms - other.latency_ms);
  const parts = Object.keys(found.available);
  const rows = items.map((item) => [designName(item.number), number(item.latency_ms),
    number(item.energy_uj_per_pixel), ...parts.map((part) => number(item.resources[part])),
    item.number === found.chosen_number ? "chosen" : found.front.includes(item.number)
      ? "on the front" : ""]);
  return el("div", {}, el("p", { class: "soft" }, kept === null
    ? `The front, ${rows.length} designs; drag in a plot to list others.`
    : `${rows.length} designs in the box; double-click a plot to see the front again.`),
  table(["design", "ms", "uJ a pixel", ...parts, ""], rows, { scroll: true,
    row: (row) => ({ class: "link", tabindex: 0, "data-design": row[0],
      onclick: () => openDesign(row[0]),
      onkeydown: (event) => { if (event.key === "Enter") openDesign(row[0]); } }) }));
}

// The chosen design against the one the search began with, at their own clocks and at one.
function ratioText(found) {
  const best = (found.candidates || []).find((item) => item.number === found.chosen_number);
  if (!best || !found.default) return "";
  const same = found.chosen_at_default_clock;
  return ` With ddr3 the chosen design is ${number(found.default.latency_ms / best.latency_ms, 3)} `
    + `times as fast as ${found.default.overlay}`
    + (same ? `, ${number(found.default.latency_ms / same.latency_ms, 3)} times at one clock `
      + `(${number(same.clock_mhz)} MHz).` : ".");
}

function searchText() {
  const found = DATA.search;
  return `${found.designs_evaluated} designs simulated, ${found.designs_pruned} left out because `
    + `their bounds are dominated, ${found.designs_infeasible} not feasible. `
    + (found.complete ? "" : "The search was ended early. ")
    + "Figures here are those of the search (flat memory); sheets are simulated with ddr3. "
    + `Chosen is the smallest product of latency and energy.${ratioText(found)}`;
}

function searchSection() {
  const text = el("p", {}, searchText());
  const nodes = [plotNode(), plotNode()];
  const list = el("div", { id: "designs" }, designList(null));
  const shown = section("front", "Designs of the search",
    text, el("p", { class: "soft" }, "Click a design for its sheet; drag a box to select."),
    el("div", { class: "pair" }, ...nodes), list);
  const answer = (kept) => list.replaceChildren(designList(kept));
  const events = {
    plotly_click: (event) => openDesign(designName(event.points[0].customdata)),
    plotly_selected: (event) => brushed(nodes, event, answer),
    plotly_deselect: () => brushed(nodes, null, answer),
  };
  return { node: shown, start: () => {
    plot(nodes[0], () => frontPlot(["latency", "energy"]), events);
    plot(nodes[1], () => frontPlot(["latency", "fabric"]), events);
  }, again: () => {
    text.textContent = searchText();
    redraw();
    answer(null);
  } };
}

// The sheet of a design that was not simulated again: what the search knows of it.
function briefSheet(name) {
  const item = DATA.search && DATA.search.designs.find((found) => designName(found.number) === name);
  if (!item) return null;
  const source = DATA.sources.find((found) => found.kind === "search");
  const file = quoted(`${source ? source.name : "explore.json"}#${item.number}`);
  const board = DATA.search.board ? ` --board ${quoted(DATA.search.board)}` : "";
  return el("div", {},
    el("p", {}, `${number(item.latency_ms)} ms, ${number(item.energy_uj_per_pixel)} uJ a pixel `
      + "(predicted, flat memory). Its layers were not simulated for this page."),
    el("p", {}, DATA.live ? "As a file, when the search has ended: " : "As a file: ", el("code", {}, `cosim design ${file}${board} --out design.toml`)),
    el("h3", {}, "Parameters"),
    table(["field", "value"], Object.entries(item.choice), { words: true, scroll: true }));
}
