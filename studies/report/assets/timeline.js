// The units over time: shares of each slice of time when far, single operations when near.
"use strict";
const SLICES = 140;
const MOST_SINGLE = 500; // operations that are drawn one by one
const LANE = 0.84;

function stateName(timeline, cause) {
  return cause < 0 ? "busy" : timeline.causes[cause];
}

// Operations of a unit with any part inside [from, to): from its first to its last place.
function within(unit, from, to) {
  const { start, length, waited } = unit;
  let low = 0, high = start.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (start[middle] + length[middle] <= from) low = middle + 1; else high = middle;
  }
  let last = low;
  while (last < start.length && start[last] - waited[last] < to) last++;
  return [low, last];
}

function singles(timeline, unit, lane, range, toMs, bars) {
  for (let at = range[0]; at < range[1]; at++) {
    const begin = unit.start[at], cycles = unit.length[at], stall = unit.waited[at];
    const layer = timeline.layers[unit.layer[at]];
    const rows = unit.hits[at] + unit.misses[at]
      ? `<br>DRAM rows: ${unit.hits[at]} found open, ${unit.misses[at]} opened` : "";
    bars("busy", begin, cycles, lane, LANE, `${plain(unit.name)}: ${plain(layer)} `
      + `${timeline.kinds[unit.kind[at]]}<br>${cycles.toLocaleString("en")} cycles from `
      + `${number(toMs(begin), 6)} ms${rows}`);
    if (stall) {
      const state = stateName(timeline, unit.cause[at]);
      bars(state, begin - stall, stall, lane, LANE, `${plain(unit.name)} stalls: ${state}`
        + `<br>${stall.toLocaleString("en")} cycles before ${plain(layer)}`);
    }
  }
}

function slices(timeline, unit, lane, range, from, to, bars) {
  const width = (to - from) / SLICES;
  const found = Array.from({ length: SLICES }, () => ({ states: {}, layers: {}, hits: 0, misses: 0 }));
  const spread = (begin, cycles, put) => {
    const end = begin + cycles;
    for (let place = Math.max(0, Math.floor((begin - from) / width));
      place < SLICES && from + place * width < end; place++) {
      const part = Math.min(end, from + (place + 1) * width) - Math.max(begin, from + place * width);
      if (part > 0) put(found[place], part);
    }
  };
  for (let at = range[0]; at < range[1]; at++) {
    const layer = timeline.layers[unit.layer[at]];
    spread(unit.start[at], unit.length[at], (slice, part) => {
      slice.states.busy = (slice.states.busy || 0) + part;
      slice.layers[layer] = (slice.layers[layer] || 0) + part;
      slice.hits += unit.hits[at] * part / unit.length[at];
      slice.misses += unit.misses[at] * part / unit.length[at];
    });
    const state = stateName(timeline, unit.cause[at]);
    spread(unit.start[at] - unit.waited[at], unit.waited[at], (slice, part) => {
      slice.states[state] = (slice.states[state] || 0) + part;
    });
  }
  found.forEach((slice, place) => {
    const layer = Object.entries(slice.layers).sort((one, other) => other[1] - one[1])[0];
    const note = (layer ? `<br>mostly ${plain(layer[0])}` : "") + (slice.hits + slice.misses >= 1
      ? `<br>DRAM rows: ${Math.round(slice.hits)} found open, ${Math.round(slice.misses)} opened`
      : "");
    let height = 0;
    for (const state of Object.keys(slice.states).sort((one, other) =>
      (other === "busy") - (one === "busy") || (one < other ? -1 : 1))) {
      const share = Math.min(1 - height / LANE, slice.states[state] / width);
      bars(state, from + place * width, width, lane + height, LANE * share,
        `${plain(unit.name)}: ${state} ${(100 * share).toFixed(1)} % of this slice${note}`);
      height += LANE * share;
    }
  });
}

function timelinePlot(item, view) {
  const timeline = item.timeline;
  const toMs = (cycles) => cycles / item.clock_hz * 1e3;
  const [from, to] = view.range;
  const ranges = timeline.units.map((unit) => within(unit, from, to));
  const count = ranges.reduce((sum, [first, last]) => sum + last - first, 0);
  view.single = count <= MOST_SINGLE;
  const traces = {};
  const bars = (state, begin, cycles, base, height, text) => {
    const trace = traces[state] = traces[state] || { type: "bar", name: state === "busy" ? "busy"
      : `stall: ${state}`, x: [], y: [], width: [], base: [], text: [], textposition: "none",
    marker: { color: stateColour(state), line: { width: view.single ? 0.5 : 0,
      color: colour("--panel") } }, hovertemplate: "%{text}<extra></extra>" };
    trace.x.push(toMs(begin + cycles / 2)); trace.width.push(toMs(cycles));
    trace.base.push(base); trace.y.push(height); trace.text.push(text);
  };
  timeline.units.forEach((unit, place) => {
    const lane = timeline.units.length - 1 - place;
    if (view.single) singles(timeline, unit, lane, ranges[place], toMs, bars);
    else slices(timeline, unit, lane, ranges[place], from, to, bars);
  });
  const names = timeline.units.map((unit) => plain(unit.name));
  const order = Object.keys(traces).sort((one, other) => (other === "busy") - (one === "busy")
    || (one < other ? -1 : 1));
  return { data: order.map((name) => traces[name]),
    layout: layout(110 + 34 * names.length, { barmode: "overlay", bargap: 0, dragmode: "zoom",
      hovermode: "closest", xaxis: axis("ms", { range: [toMs(from), toMs(to)] }),
      yaxis: axis("", { fixedrange: true, range: [-0.1, names.length], showgrid: false,
        tickvals: names.map((_, place) => names.length - 1 - place + LANE / 2),
        ticktext: names }) }) };
}

function timelineBlock(item) {
  const timeline = item.timeline;
  const view = { range: [0, timeline.end], single: false };
  const node = plotNode();
  const note = el("p", { class: "soft" });
  let entry = null;
  const show = (from, to) => {
    const least = 20; // cycles
    const low = Math.max(0, Math.min(from, timeline.end - least));
    view.range = [low, Math.min(timeline.end, Math.max(to, low + least))];
    entry.draw();
    tell();
  };
  const tell = () => {
    note.textContent = view.single ? "Each bar is one operation or one wait."
      : "Each column is a slice of time; its height is the share of the slice. Zoom in to see "
        + "single operations.";
  };
  const spans = {};
  for (const unit of timeline.units) {
    unit.layer.forEach((layer, at) => {
      const span = spans[layer] = spans[layer] || [Infinity, 0];
      span[0] = Math.min(span[0], unit.start[at]);
      span[1] = Math.max(span[1], unit.start[at] + unit.length[at]);
    });
  }
  const layers = Object.keys(spans).sort((one, other) => spans[one][0] - spans[other][0]);
  const picker = choose("zoom to", [["", "the whole frame"],
    ...layers.map((layer) => [layer, timeline.layers[layer]])], "", (layer) => {
    show(...(layer === "" ? [0, timeline.end] : spans[layer]));
  });
  const onZoom = (event) => {
    if (event["xaxis.autorange"]) { show(0, timeline.end); return; }
    const from = event["xaxis.range[0]"], to = event["xaxis.range[1]"];
    if (from === undefined) return;
    show(from * item.clock_hz / 1e3, to * item.clock_hz / 1e3);
  };
  return { node: el("div", { id: "timeline" }, el("h3", {}, "Units over time"),
    el("p", {}, picker, el("button", { onclick: () => show(0, timeline.end) }, "whole frame")),
    note, node, el("p", { class: "soft" }, "A transfer that waits for the memory counts as busy "
      + "here. Burst by burst, with the design's file (below) as design.toml: ",
      el("code", {}, item.trace_command), ", then open the trace at ",
    el("a", { href: "https://ui.perfetto.dev", rel: "noreferrer" }, "ui.perfetto.dev"), ".")),
  start: () => {
    entry = plot(node, () => timelinePlot(item, view), { plotly_relayout: onZoom });
    tell();
  } };
}
