// Two designs side by side; a comparison that adds up; a grid or a tornado of what-ifs.
"use strict";
const MOST_DIFFERENCES = 30; // bars of a comparison
function sidesSection() {
  const names = Object.keys(DATA.sheets);
  const chosen = names.find((name) => DATA.search
    && name === designName(DATA.search.chosen_number)) || names[names.length - 1];
  const pair = [names[0], chosen === names[0] ? names[1] : chosen];
  const body = el("div", {});
  const node = plotNode();
  const show = () => body.replaceChildren(sideTables(...pair));
  const entry = { draw: () => {} };
  const pick = (side) => (name) => { pair[side] = name; show(); entry.draw(); };
  const choices = names.map((name) => [name, name]);
  const shown = section("sides", "Two designs side by side",
    el("p", {}, choose("A", choices, pair[0], pick(0)), choose("B", choices, pair[1], pick(1))),
    body, el("h3", {}, "Time of each layer"), node);
  return { node: shown, start: () => {
    show();
    Object.assign(entry, plot(node, () => sidesPlot(...pair)));
  } };
}

function sideTables(a, b) {
  const [one, other] = [DATA.sheets[a], DATA.sheets[b]];
  const rows = one.figures.map(([name, value], place) => [name, value, other.figures[place]
    ? other.figures[place][1] : "-"]);
  const differs = (row) => ({ class: row[1] === row[2] ? "" : "differs" });
  const fabric = one.resources.map((part, place) => [part.name,
    `${(100 * part.used / part.available).toFixed(1)} %`,
    `${(100 * other.resources[place].used / other.resources[place].available).toFixed(1)} %`]);
  const blocks = [el("div", {}, table(["", a, b], [...rows, ...fabric], { words: true }))];
  if (one.parameters && other.parameters) {
    const second = new Map(other.parameters);
    const first = new Map(one.parameters);
    const fields = [...new Set([...first.keys(), ...second.keys()])].map(
      (name) => [name, first.get(name) ?? "-", second.get(name) ?? "-"]).filter(
      ([name, left, right]) => left !== right && name !== "name");
    blocks.push(el("div", {}, fields.length ? table(["parameter", a, b], fields,
      { words: true, scroll: true, row: differs }) : "The same parameters."));
  }
  return el("div", { class: "pair" }, ...blocks);
}

function sidesPlot(a, b) {
  const sides = [[a, "--soft"], [b, "--accent"]];
  const names = [...new Set(sides.flatMap(([name]) => longest(DATA.sheets[name].layers).map(
    (layer) => layer.name)))];
  const data = sides.map(([side, tint]) => {
    const found = new Map(DATA.sheets[side].layers.map((layer) => [layer.name, layer.ms]));
    return { type: "bar", orientation: "h", name: plain(side), y: names.map((_, at) => at),
      x: names.map((name) => found.get(name) || 0), marker: { color: colour(tint) },
      customdata: names.map(plain), hovertemplate: `%{customdata}: %{x:.4~f} ms, ${plain(side)}`
        + "<extra></extra>" };
  });
  return { data, layout: layout(100 + 22 * names.length, { barmode: "group", bargap: 0.25,
    xaxis: axis("ms"), yaxis: axis("", { autorange: "reversed", showgrid: false, tickfont: { size: 10 },
      tickvals: names.map((_, at) => at),
      ticktext: names.map((name) => plain(shortName(name, narrow() ? 16 : 40))) }) }) };
}

function comparisonSection() {
  const found = DATA.comparison;
  const kinds = { layers: "by layer", states: "by state of the layer's engine",
    units: "by unit on the critical path", cells: "layer, engine and state" };
  const node = plotNode();
  const note = el("p", { class: "soft" });
  let kind = "layers";
  let entry = null;
  const ratio = found.energy_ratio;
  const shown = section("comparison", `Where ${found.names[0]} and ${found.names[1]} differ`,
    el("p", {}, "Every cycle of both is counted once, so each split adds up to the difference. ",
      ratio ? `B takes ${number(ratio.value, 3)} (${number(ratio.low, 3)} to `
        + `${number(ratio.high, 3)}) of A's energy.` : "",
      found.one_clock ? ` At one clock (${number(found.one_clock.clock_mhz)} MHz) A takes `
        + `${number(found.one_clock.a_ms)} ms and B ${number(found.one_clock.b_ms)} ms.` : ""),
    choose("split", Object.entries(kinds), kind, (name) => { kind = name; entry.draw(); }), note, node);
  return { node: shown, start: () => {
    entry = plot(node, () => {
      const rows = found[kind].slice(0, MOST_DIFFERENCES);
      note.textContent = rows.length === found[kind].length ? "" : `The ${rows.length} largest of `
        + `${found[kind].length} differences; the others sum to ${number(found[kind].slice(
          rows.length).reduce((sum, row) => sum + row.delta_ms, 0))} ms.`;
      return { data: [{ type: "bar", orientation: "h", y: rows.map((_, at) => at),
        x: rows.map((row) => row.delta_ms), marker: { color: rows.map((row) => colour(
          row.delta_ms < 0 ? "--accent" : "--mark")) },
        customdata: rows.map((row) => [plain(row.name), row.a_ms, row.b_ms]),
        hovertemplate: "%{customdata[0]}<br>A %{customdata[1]:.4~f} ms, B %{customdata[2]:.4~f} "
          + "ms: %{x:+.4~f} ms<extra></extra>" }],
      layout: layout(90 + 20 * rows.length, { xaxis: axis("B minus A, ms"),
        yaxis: axis("", { autorange: "reversed", tickvals: rows.map((_, at) => at),
          ticktext: rows.map((row) => plain(shortName(row.name, narrow() ? 16 : 44))),
          tickfont: { size: 10 } }) }) };
    });
  } };
}

function whatIfSection() {
  const found = DATA.what_if;
  const nodes = [plotNode(), plotNode()];
  const shown = section("what-if", "What if", el("p", {}, `${found.workload} on ${found.design} / `
    + `${found.board}${found.unchecked.length ? " (unchecked)" : ""}, predicted (${found.memory_model}).`), el("div", { class: "pair" }, ...nodes),
  found.rows.length ? gridTable(found.rows) : null);
  const make = found.rows.length ? gridPlot : tornadoPlot;
  return { node: shown, start: () => nodes.forEach((node, place) => plot(node,
    () => make(found, ["latency_ms", "energy_uj_per_pixel"][place],
      ["latency, ms", "energy, uJ a pixel"][place]))) };
}

function gridTable(rows) {
  const fields = Object.keys(rows[0].values);
  return table([...fields, "ms", "uJ a pixel", "80 %", "bottleneck"], rows.map((row) => [
    ...fields.map((name) => row.values[name]), number(row.latency_ms),
    number(row.energy_uj_per_pixel), row.energy_limits_uj_per_pixel
      ? row.energy_limits_uj_per_pixel.map((limit) => number(limit, 3)).join(" to ") : "-",
    row.reason || row.bottleneck || ""]), { words: true, scroll: true });
}

function gridPlot(found, figure, title) {
  const rows = found.rows;
  const fields = Object.keys(rows[0].values);
  const text = (row) => plain(fields.map((name) => `${name} ${row.values[name]}`).join("\n")
    + `\n${row.reason ? `not feasible: ${row.reason}` : `${number(row[figure])} (${title}), `
      + `bottleneck ${row.bottleneck}`}`).replace(/\n/g, "<br>");
  if (fields.length === 2) {
    const [down, across] = fields.map((name) => [...new Set(rows.map((row) => row.values[name]))]);
    const at = (one, other) => rows.find((row) => row.values[fields[0]] === one
      && row.values[fields[1]] === other);
    return { data: [{ type: "heatmap", x: across.map(plain), y: down.map(plain), showscale: false,
      colorscale: [[0, colour("--line")], [1, colour(figure === "latency_ms" ? "--accent"
        : "--mark")]],
    z: down.map((one) => across.map((other) => at(one, other)[figure])),
    customdata: down.map((one) => across.map((other) => text(at(one, other)))),
    text: down.map((one) => across.map((other) => number(at(one, other)[figure]))),
    texttemplate: "%{text}", hovertemplate: "%{customdata}<extra></extra>" }],
    layout: layout(140 + 44 * down.length, { title: { text: title, font: { size: 13 } },
      margin: { l: 50, r: 12, t: 40, b: 40 }, xaxis: axis(fields[1], { type: "category" }),
      yaxis: axis(fields[0], { type: "category", autorange: "reversed" }) }) };
  }
  const names = rows.map((row) => plain(fields.map((name) => row.values[name]).join(", ")));
  return { data: [{ type: "bar", orientation: "h", y: rows.map((_, place) => place),
    x: rows.map((row) => row[figure]), customdata: rows.map(text),
    marker: { color: colour(figure === "latency_ms" ? "--accent" : "--mark") },
    hovertemplate: "%{customdata}<extra></extra>" }],
  layout: layout(110 + 20 * rows.length, { xaxis: axis(title), yaxis: axis(
    plain(fields.join(", ")), { autorange: "reversed", tickvals: rows.map((_, place) => place),
      ticktext: names.map((name) => shortName(name, narrow() ? 16 : 40)) }) }) };
}

function tornadoPlot(found, figure, title) {
  const start = found.base[figure];
  const reach = (row) => Math.max(...["down", "up"].map((side) => (row[side][figure] === null ? 0
    : Math.abs(row[side][figure] - start))));
  const rows = found.sensitivities.filter((row) => reach(row) > 1e-3 * start)
    .sort((one, other) => reach(other) - reach(one));
  const data = [["down", "--accent"], ["up", "--mark"]].map(([side, tint]) => ({ type: "bar",
    orientation: "h", name: `a step ${side}`, y: rows.map((_, place) => place), base: start,
    x: rows.map((row) => (row[side][figure] === null ? 0 : row[side][figure] - start)),
    customdata: rows.map((row) => plain(`${row.parameter}: ${row.now} to ${row[side].value}, `
      + (row[side].reason || `${number(row[side][figure])} (${title})`))),
    marker: { color: colour(tint) }, hovertemplate: "%{customdata}<extra></extra>" }));
  return { data, layout: layout(110 + 18 * rows.length, { barmode: "overlay",
    xaxis: axis(`${title}; now ${number(start)}`), yaxis: axis("", { autorange: "reversed",
      tickfont: { size: 10 }, tickvals: rows.map((_, place) => place),
      ticktext: rows.map((row) => plain(shortName(row.parameter, narrow() ? 18 : 40))) }) }) };
}
