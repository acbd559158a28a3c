// Small tools that the other parts share: elements, numbers, plots that follow theme and width.
"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const NARROW = 600; // pixels
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif";
const plots = [];

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

function section(id, title, ...children) {
  return el("section", { id }, el("h2", {}, title), ...children);
}

// The library reads a little markup in texts; names from files are no markup.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function number(value, digits = 4) {
  if (value === null || value === undefined) return "-";
  if (value !== 0 && Math.abs(value) >= 1e4) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

// A word of a command as a shell takes it.
function quoted(text) {
  return /^[\w@%+=:,./#-]+$/.test(text) ? text : `'${text.replace(/'/g, "'\\''")}'`;
}

function shortName(text, most) {
  return text.length <= most ? text : "…" + text.slice(1 - most);
}

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const narrow = () => document.documentElement.clientWidth < NARROW;

function stateColour(name) {
  if (name === "idle") return colour("--line");
  if (name === "host") return colour("--soft");
  return DATA.colours[name] || colour("--ghost");
}

function axis(title, more = {}) {
  return { title: { text: title, font: { size: 12 } }, gridcolor: colour("--line"),
    zerolinecolor: colour("--line"), linecolor: colour("--ghost"), automargin: true, ...more };
}

function layout(height, more = {}) {
  return { height, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--text"), size: 12, family: FONT }, margin: { l: 50, r: 12, t: 12, b: 40 },
    colorway: [colour("--accent")], hoverlabel: { align: "left", bgcolor: colour("--box"),
      bordercolor: colour("--ghost"), font: { color: colour("--text"), size: 12 } },
    legend: { orientation: "h", traceorder: "normal", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } }, ...more };
}

// A plot in a node; `make` gives {data, layout} and is asked again when theme or width change.
function plot(node, make, events = {}) {
  const entry = { node, make };
  entry.draw = () => {
    const { data, layout: wanted } = make();
    return Plotly.react(node, data, wanted, { responsive: true, displaylogo: false,
      displayModeBar: narrow() ? false : "hover", scrollZoom: false,
      modeBarButtonsToRemove: ["toImage", "autoScale2d"] });
  };
  entry.draw();
  for (const [name, answer] of Object.entries(events)) node.on(name, answer);
  plots.push(entry);
  return entry;
}

function plotNode() {
  return el("div", { class: "plot" });
}

// Plots whose node has left the page are forgotten.
function redraw() {
  for (let place = plots.length - 1; place >= 0; place--) {
    if (!document.body.contains(plots[place].node)) plots.splice(place, 1);
  }
  for (const entry of plots) entry.draw();
}

function watchTheme() {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let before = narrow();
  addEventListener("resize", () => {
    if (narrow() !== before) { before = narrow(); redraw(); }
  });
}

function choose(label, choices, chosen, answer) {
  const box = el("select", { onchange: () => answer(box.value) },
    ...choices.map(([value, text]) => el("option", { value }, text)));
  box.value = chosen;
  return el("label", {}, `${label} `, box);
}

function table(heads, rows, more = {}) {
  return el("div", { class: `wide ${more.scroll ? "tall" : ""}` },
    el("table", { class: more.words ? "words" : "" },
      el("thead", {}, el("tr", {}, ...heads.map((head) => el("th", {}, head)))),
      el("tbody", {}, ...rows.map((row) => el("tr", more.row ? more.row(row) : {},
        ...row.map((cell) => el("td", {}, String(cell))))))));
}
