// One design: figures, roofline, time of layers, units, energy, parameters.
"use strict";
function openDesign(name) {
  const box = document.getElementById("sheet");
  if (!box) return;
  showSheet(name);
  box.scrollIntoView({ behavior: "auto", block: "start" });
}

function showSheet(name) {
  const body = document.getElementById("sheet-body");
  const item = DATA.sheets[name];
  const picker = document.querySelector("#sheet > label select");
  document.getElementById("sheet-name").textContent = name;
  if (picker && item) picker.value = name;
  if (!item) {
    body.replaceChildren(briefSheet(name) || el("p", {}, "Nothing is known of this design."));
    return;
  }
  const starts = [];
  const add = (title, note, make, events) => {
    const node = plotNode();
    starts.push(() => plot(node, () => make(item), events));
    return el("div", {}, el("h3", {}, title), note ? el("p", { class: "soft" }, note) : null, node);
  };
  const timeline = item.timeline ? timelineBlock(item) : null;
  const parts = [
    el("p", {}, `${item.heading}${item.displaced ? "; " + item.displaced : ""}.`),
    el("div", { class: "pair" },
      el("div", {}, el("h3", {}, "Figures"), table(["", ""], item.figures, { words: true })),
      el("div", {}, el("h3", {}, `Fabric: ${item.sites}`), table(["", "used", "on the board", "%"],
        item.resources.map((part) => [part.name, number(part.used), number(part.available),
          (100 * part.used / part.available).toFixed(1)])),
      add("Units over the frame", "Busy, stalled by cause, idle.", unitPlot))),
    item.layers.length ? el("div", { class: "pair" },
      add("Roofline", "One dot a layer; its area is the layer's time.", rooflinePlot),
      add("Energy by part", "uJ a pixel of every design here; the whole with its 80 % interval.", energyPlot)) : null,
    timeline && timeline.node,
    item.layers.length ? add("Layers: time, as the engine spends it",
      item.layers.length > MOST_BARS ? `The ${MOST_BARS} longest of ${item.layers.length}.` : "",
      layerPlot) : null,
    item.network ? el("div", {}, el("h3", {}, "The network: time, bytes and energy by layer"),
      el("p", { class: "soft" }, "From first to last layer; arcs are tensors read later. A layer "
        + "without bars was absorbed by another or costs nothing."
        + (item.network.nodes.some((entry) => entry.sqnr_db !== null) ? " dB: int8 against the "
          + "file's float network, at a layer's output, with all that was lost before it." : "")),
      networkBlock(item, starts)) : null,
    item.diagram ? el("div", {}, el("h3", {}, "The accelerator"), diagramBlock(item)) : null,
    item.parameters ? el("details", {}, el("summary", {}, "Parameters of the design, and its file"),
      table(["field", "value"], item.parameters, { words: true, scroll: true }),
      el("pre", {}, item.design_file)) : null,
  ];
  body.replaceChildren(...parts.filter(Boolean));
  for (const start of starts) start();
  if (timeline) timeline.start();
}

function sheetSection() {
  const names = Object.keys(DATA.sheets);
  const body = el("div", { id: "sheet-body" });
  const node = section("sheet", "One design: ", names.length > 1
    ? choose("show", names.map((name) => [name, name]), names[0], showSheet) : null, body);
  node.querySelector("h2").append(el("span", { id: "sheet-name" }));
  const first = names.find((name) => DATA.search
    && name === designName(DATA.search.chosen_number)) || names[names.length - 1];
  return { node, start: () => { if (first) showSheet(first); } };
}

function stateBars(rows, names, scale, unit) {
  const states = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const order = ["busy", ...states.filter((name) => name !== "busy" && name !== "idle").sort(),
    "idle"];
  return order.filter((name) => rows.some((row) => row[name])).map((name) => ({
    type: "bar", orientation: "h", name: name === "busy" || name === "idle" ? name
      : `stall: ${name}`,
    y: names, x: rows.map((row, place) => (row[name] || 0) * scale(place)),
    marker: { color: stateColour(name) },
    hovertemplate: `%{y}: ${name} %{x:.3~f} ${unit}<extra></extra>` }));
}

function unitPlot(item) {
  const rows = item.units.map((unit) => unit.states);
  const totals = rows.map((row) => Object.values(row).reduce((sum, part) => sum + part, 0));
  return { data: stateBars(rows, item.units.map((unit) => plain(unit.name)),
    (place) => 100 / Math.max(1, totals[place]), "%"),
  layout: layout(90 + 22 * rows.length, { barmode: "stack", xaxis: axis("% of the frame"),
    yaxis: axis("", { autorange: "reversed" }) }) };
}

const MOST_BARS = 80;

// The longest layers in their order, all if they are few.
function longest(layers, most = MOST_BARS) {
  if (layers.length <= most) return layers;
  const kept = new Set([...layers].sort((one, other) => other.ms - one.ms).slice(0, most));
  return layers.filter((layer) => kept.has(layer));
}

function layerPlot(item) {
  const layers = longest(item.layers);
  const names = layers.map((layer) => plain(shortName(layer.name, narrow() ? 16 : 40)));
  const data = stateBars(layers.map((layer) => layer.states), layers.map((_, at) => at),
    () => 1, "ms");
  for (const trace of data) {
    trace.customdata = layers.map((layer) => plain(layer.name));
    trace.hovertemplate = `%{customdata}: ${trace.name} %{x:.4~f} ms<extra></extra>`;
  }
  return { data, layout: layout(100 + 16 * names.length, { barmode: "stack", bargap: 0.15,
    xaxis: axis("ms"), yaxis: axis("", { autorange: "reversed", showgrid: false,
      tickvals: names.map((_, at) => at),
      ticktext: names, tickfont: { size: 10 } }) }) };
}

function rooflinePlot(item) {
  const dots = item.layers.filter((layer) => layer.macs && layer.intensity);
  const { gmacs, gbytes } = item.roof;
  const reach = dots.map((layer) => layer.intensity);
  const low = Math.min(1, ...reach) / 1.5;
  const high = Math.max(1, gmacs / gbytes, ...reach) * 2;
  const whole = Math.max(1e-12, dots.reduce((sum, layer) => sum + layer.ms, 0));
  const knee = gmacs / gbytes;
  return { data: [
    { type: "scatter", mode: "lines", name: `array ${number(gmacs)} GMAC/s, DRAM `
      + `${number(gbytes)} GB/s`, x: [low, knee, high], y: [low * gbytes, gmacs, gmacs],
    line: { color: colour("--soft"), width: 1.5 }, hoverinfo: "skip" },
    { type: "scatter", mode: "markers", name: "layers (the longest are named)", x: reach,
      y: dots.map((layer) => layer.gmacs), text: dots.map((layer) => plain(layer.name)),
      customdata: dots.map((layer) => [layer.ms, 100 * layer.utilization, plain(layer.bound)]),
      marker: { color: colour("--accent"), opacity: 0.75,
        size: dots.map((layer) => 6 + 60 * Math.sqrt(layer.ms / whole) / 2),
        line: { width: 0.7, color: colour("--back") } },
      hovertemplate: "%{text}<br>%{customdata[0]:.4~f} ms, %{y:.4~f} GMAC/s, %{x:.4~f} MAC a byte"
        + "<br>%{customdata[1]:.1f} % of the array; bound by %{customdata[2]}<extra></extra>" }],
  layout: layout(380, { hovermode: "closest", annotations: spotNames(dots),
    xaxis: axis("MAC a byte of DRAM traffic",
    { type: "log" }), yaxis: axis("10^9 MAC a second", { type: "log" }) }) };
}

// Names beside the dots of the longest layers that lie apart from one another.
function spotNames(dots) {
  const most = narrow() ? 3 : 7;
  const kept = [];
  for (const layer of [...dots].sort((one, other) => other.ms - one.ms)) {
    const [x, y] = [Math.log10(layer.intensity), Math.log10(Math.max(layer.gmacs, 1e-9))];
    if (kept.every((spot) => Math.abs(spot.x - x) > 0.35 || Math.abs(spot.y - y) > 0.1)) {
      kept.push({ x, y, text: plain(shortName(layer.name, 20)), showarrow: false, yshift: -16,
        font: { size: 11, color: colour("--soft") } });
    }
    if (kept.length === most) break;
  }
  return kept;
}

// Energy a pixel of every design with a sheet; small parts together.
function energyPlot() {
  const names = Object.keys(DATA.sheets);
  const items = Object.values(DATA.sheets);
  const parts = [...new Set(items.flatMap((item) => Object.keys(item.energy_parts)))];
  const small = parts.filter((part) => items.every(
    (item) => (item.energy_parts[part] || 0) < 0.01 * item.energy_uj_per_pixel));
  const shown = parts.filter((part) => !small.includes(part));
  const values = (part) => items.map((item) => item.energy_parts[part] || 0);
  const rest = items.map((item) => small.reduce(
    (sum, part) => sum + (item.energy_parts[part] || 0), 0));
  const bars = [...shown.map((part) => [part, values(part)]),
    ...(small.length ? [[`${small.length} parts below 1 %`, rest]] : [])];
  const data = bars.map(([name, xs], place) => ({ type: "bar", orientation: "h", name: plain(name),
    y: names.map((text) => plain(shortName(text, narrow() ? 14 : 30))), x: xs,
    marker: { color: DATA.parts[place % DATA.parts.length] },
    hovertemplate: `${plain(name)}: %{x:.4~f} uJ a pixel<extra></extra>` }));
  data.push({ type: "scatter", mode: "markers", name: "whole, 80 % interval", y: data[0].y,
    x: items.map((item) => item.energy_uj_per_pixel), marker: { color: colour("--text"), size: 6 },
    error_x: { type: "data", symmetric: false, color: colour("--text"), thickness: 1.5,
      array: items.map((item) => item.energy_limits[1] - item.energy_uj_per_pixel),
      arrayminus: items.map((item) => item.energy_uj_per_pixel - item.energy_limits[0]) },
    customdata: items.map((item) => item.energy_limits),
    hovertemplate: "%{x:.4~f} uJ a pixel (80 %: %{customdata[0]:.4~f} to %{customdata[1]:.4~f})"
      + "<extra></extra>" });
  return { data, layout: layout(300 + 26 * names.length, { barmode: "stack", bargap: 0.35,
    xaxis: axis(""), yaxis: axis("", { autorange: "reversed" }),
    legend: { orientation: "h", traceorder: "normal", y: -0.12, yanchor: "top", x: 0, font: { size: 11 } } }) };
}
