// The network as a list of layers with arcs for tensors that are read later, and bars a layer.
"use strict";
const MOST_NODES = 150; // drawn without being asked

// Bars, and the choices of what colours the layers: name, words, unit, tint, value of a node.
function networkMeasures(item) {
  const layers = new Map(item.layers.map((layer) => [layer.name, layer]));
  const of = (value) => (entry) => (layers.has(entry.name) ? value(layers.get(entry.name)) : null);
  const found = [
    { name: "time", unit: "ms", tint: "--accent", value: of((layer) => layer.ms) },
    { name: "bytes", unit: "MB", tint: "--mark",
      value: of((layer) => (layer.read + layer.written) / 1e6) },
    { name: "energy", unit: "mJ", tint: "--soft", value: of((layer) => layer.mj) },
  ];
  if (item.network.nodes.some((entry) => entry.sqnr_db !== null)) {
    found.push({ name: "SQNR", unit: "dB", tint: "--ghost", low: true,
      value: (entry) => entry.sqnr_db });
  }
  return found;
}

function networkBlock(item, starts) {
  const node = plotNode();
  const measures = networkMeasures(item);
  let by = measures[0];
  let entry = null;
  const start = () => { entry = plot(node, () => networkPlot(item, measures, by)); };
  const picker = el("p", {}, choose("colour the layers by",
    measures.map((one) => [one.name, one.low ? `${one.name} (low is worse)` : one.name]), by.name,
    (name) => { by = measures.find((one) => one.name === name); if (entry) entry.draw(); }));
  const count = item.network.nodes.length;
  if (count <= MOST_NODES) {
    starts.push(start);
    return el("div", { class: "network" }, picker, node);
  }
  return el("details", { class: "network", ontoggle: () => { if (!entry) start(); } },
    el("summary", {}, `Draw all ${count} layers`), picker, node);
}

// A share of the greatest value, from the ghost's colour to the mark's; low values of a measure
// that is worse when low stand out.
function dots(nodes, by) {
  const values = nodes.map(by.value);
  const known = values.filter((value) => value !== null);
  const [least, most] = [Math.min(...known), Math.max(...known)];
  const faint = by.low ? most : 0;
  return { size: 9, color: values.map((value) => (value === null ? faint : value)),
    cmin: by.low ? least : 0, cmax: most, colorscale: [[0, colour(by.low ? "--mark" : "--ghost")],
      [1, colour(by.low ? "--ghost" : "--mark")]], line: { width: 0 } };
}

function arcs(edges) {
  const longest = Math.max(1, ...edges.map(([from, to]) => to - from));
  return edges.filter(([from, to]) => to - from > 1).map(([from, to]) => {
    const depth = Math.sqrt((to - from) / longest);
    const steps = Array.from({ length: 13 }, (_, step) => step / 12);
    return { x: steps.map((at) => -depth * Math.sin(Math.PI * at)),
      y: steps.map((at) => from + (to - from) * at) };
  });
}

function networkPlot(item, measures, by) {
  const { nodes, edges } = item.network;
  const layers = new Map(item.layers.map((layer) => [layer.name, layer]));
  const hosts = new Map(item.layers.flatMap((layer) => layer.absorbed.map(
    (name) => [name, layer.name])));
  const places = nodes.map((_, place) => place);
  const lines = { x: [], y: [] };
  for (const arc of arcs(edges)) {
    lines.x.push(...arc.x, null); lines.y.push(...arc.y, null);
  }
  const texts = nodes.map((entry) => {
    const found = layers.get(entry.name);
    const inside = hosts.has(entry.name) ? `<br>absorbed by ${plain(hosts.get(entry.name))}` : "";
    return `${plain(entry.name)}: ${plain(entry.operator)}, ${entry.shape}, each ${entry.phase}`
      + (found ? `<br>${number(found.ms)} ms, ${number((found.read + found.written) / 1e6)} MB, `
        + `${number(found.mj)} mJ on ${plain(found.engine)}` : "") + inside
      + (entry.sqnr_db === null ? "" : `<br>int8 against float: ${number(entry.sqnr_db, 3)} dB`);
  });
  const small = narrow();
  const edge = small ? 0.16 : 0.14;
  const wide = (1 - edge) / measures.length;
  const data = [
    { type: "scatter", mode: "lines", x: lines.x, y: lines.y, xaxis: "x", hoverinfo: "skip",
      line: { color: colour("--ghost"), width: 1.2 } },
    { type: "scatter", mode: "lines+markers", x: places.map(() => 0), y: places, xaxis: "x",
      line: { color: colour("--ghost"), width: 1.2 }, text: texts,
      marker: dots(nodes, by), hovertemplate: "%{text}<extra></extra>" },
    ...measures.map(({ tint, value }, place) => ({ type: "bar", orientation: "h", y: places,
      x: nodes.map((entry) => value(entry) ?? 0),
      xaxis: `x${place + 2}`, text: texts, textposition: "none", marker: { color: colour(tint) },
      hovertemplate: "%{text}<extra></extra>" })),
  ];
  const axes = { xaxis: axis("", { domain: [0, edge - 0.03], showticklabels: false,
    showgrid: false, zeroline: false, range: [-1.1, 0.15], fixedrange: true }) };
  measures.forEach(({ unit }, place) => {
    axes[`xaxis${place + 2}`] = axis(unit, { side: "top", nticks: small ? 3 : 6,
      tickfont: { size: 10 }, domain: [edge + place * wide, edge + (place + 0.93) * wide] });
  });
  return { data, layout: layout(90 + 16 * nodes.length, { showlegend: false, bargap: 0.2,
    margin: { l: 50, r: 12, t: 50, b: 10 }, hovermode: "closest", ...axes,
    yaxis: axis("", { range: [nodes.length - 0.4, -0.6], tickvals: places, showgrid: false,
      ticktext: nodes.map((entry) => plain(shortName(entry.name, small ? 13 : 36))),
      tickfont: { size: small ? 9 : 10 } }) }) };
}
