// The accelerator as boxes: memory ports, masters, buffers, engines, and who moves data to whom.
"use strict";
const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 150, height: 40, gap: 12, columns: [10, 200, 400, 610] };

function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function bytes(count) {
  return count >= 1024 ? `${number(count / 1024, 3)} KiB` : `${count} B`;
}

function diagramBlock(item) {
  const found = item.diagram;
  const columns = [
    found.ports.map((port) => [`port ${port.name}`, port.name, `DDR port ${port.controller}`]),
    found.masters.map((master) => [`master ${master.name}`, `${master.name} (${master.role})`,
      `${master.bits} bits, ${master.outstanding} bursts of ${master.beats}`]),
    found.buffers.map((buffer) => [`buffer ${buffer.name}`, buffer.name, [
      buffer.words ? `${buffer.banks} x ${bytes(buffer.words * buffer.bytes)}` : "",
      buffer.copies > 1 ? `${buffer.copies} copies` : "",
      `${number(buffer.bram36, 3)} BRAM36`].filter(Boolean).join(", ")]),
    found.engines.map((engine) => [`engine ${engine.name}`, engine.name, engine.note]),
  ];
  const rows = Math.max(...columns.map((column) => column.length));
  const height = 30 + rows * (BOX.height + BOX.gap);
  const picture = svg("svg", { class: "diagram", viewBox: `0 0 780 ${height}`, role: "img",
    "aria-label": "ports, masters, buffers and engines of the accelerator" });
  const places = {};
  columns.forEach((column, index) => {
    const top = 24 + (rows - column.length) * (BOX.height + BOX.gap) / 2;
    column.forEach(([key], row) => {
      places[key] = [BOX.columns[index], top + row * (BOX.height + BOX.gap)];
    });
    picture.append(svg("text", { x: BOX.columns[index], y: 14, class: "note" },
      ["memory ports", "masters", "buffers", "engines"][index]));
  });
  const lines = found.wires.map(([from, to]) => {
    const [x0, y0] = places[from], [x1, y1] = places[to];
    const a = x0 + BOX.width, b = y0 + BOX.height / 2, c = y1 + BOX.height / 2;
    const path = svg("path", { d: `M${a},${b} C${a + 30},${b} ${x1 - 30},${c} ${x1},${c}` });
    picture.append(path);
    return [from, to, path];
  });
  for (const [key, name, note] of columns.flat()) {
    const [x, y] = places[key];
    const group = svg("g", { tabindex: 0, "data-box": key });
    group.append(svg("title", {}, `${name} ${note}`),
      svg("rect", { x, y, width: BOX.width, height: BOX.height, rx: 5 }),
      svg("text", { x: x + 8, y: y + 17 }, shortName(name, 22)),
      svg("text", { x: x + 8, y: y + 32, class: "note" }, note));
    const light = (on) => () => lines.forEach(([from, to, path]) => {
      if (from === key || to === key) path.classList.toggle("lit", on);
    });
    group.addEventListener("mouseenter", light(true));
    group.addEventListener("mouseleave", light(false));
    group.addEventListener("focus", light(true));
    group.addEventListener("blur", light(false));
    picture.append(group);
  }
  return el("div", {}, el("div", { class: "wide" }, picture), el("p", { class: "soft" },
    found.fusions.length ? `The convolution absorbs: ${found.fusions.join(", ")}.`
      : "The convolution absorbs no other layer."));
}
