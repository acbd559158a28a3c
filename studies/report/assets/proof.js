// A certificate: what is claimed, what excludes how many designs, the space with the best design.
"use strict";
const RULE_COLOURS = { sites: "--soft", layers: "--accent", mapped: "--mark", table: "--ghost" };

// A count of designs, large ones by their power of ten.
function count(designs) {
  if (designs < 1e7) return Math.round(designs).toLocaleString("en");
  const power = Math.floor(Math.log10(designs));
  return `${(designs / 10 ** power).toFixed(2)} x 10^${power}`;
}

function proofSection() {
  const found = DATA.proof;
  const node = plotNode();
  const file = DATA.sources.find((source) => source.kind === "certificate").name;
  const rules = table(["what excludes them", "% of all", "designs", "boxes"], found.rules.map(
    (rule) => [rule.words, number(100 * rule.designs / found.designs, 3), count(rule.designs),
      rule.boxes.toLocaleString("en")]));
  const axes = table(["axis", "values", "only with", "best design"], found.axes.map((axis) => [
    axis.name, axis.values.join(", "), axis.when, axis.best === null ? "-" : axis.best]),
  { words: true, scroll: true });
  const shown = section("proof", "Proof",
    el("p", {}, `${found.said[0].toUpperCase()}${found.said.slice(1)}.`),
    el("p", {}, "The page believes the file. To work every bound out again: ",
      el("code", {}, `cosim check ${quoted(file)}`)),
    el("h3", {}, "What excludes how many designs"), rules,
    el("h3", {}, "How the space is cut"),
    el("p", {}, ...found.rules.filter((rule) => rule.designs).map((rule) => el("span",
      { class: "key" }, el("i", { style: `background: ${ruleColour(rule.rule)}` }), rule.words))),
    el("p", { class: "soft" }, "From left to right the first cuts of the space, with the rule that "
      + "excludes most of each box. Heights say which boxes there are, not how large they are; "
      + "click one to look into it."), node,
    el("h3", {}, "The space by axis"), axes);
  return { node: shown, start: () => plot(node, () => cutsPlot(found)) };
}

function ruleColour(rule) {
  return colour(RULE_COLOURS[rule] || "--line");
}

// Designs differ by powers of ten, so a box is as high as its parts together, and one at the end 1.
function cutsPlot(found) {
  const cuts = found.cuts;
  const heights = cuts.map(() => 0);
  for (let place = cuts.length - 1; place >= 0; place--) {
    heights[place] = heights[place] || 1;
    if (place) heights[cuts[place].parent] += heights[place];
  }
  const most = (cut) => Object.entries(cut.rules).sort((one, other) => other[1] - one[1])[0][0];
  const words = Object.fromEntries(found.rules.map((rule) => [rule.rule, rule.words]));
  return { data: [{ type: "icicle", ids: cuts.map((_, place) => String(place)),
    labels: cuts.map((cut) => plain(cut.name)), branchvalues: "total", values: heights,
    parents: cuts.map((cut) => (cut.parent < 0 ? "" : String(cut.parent))),
    maxdepth: narrow() ? 3 : 6, tiling: { orientation: "h" }, sort: false,
    pathbar: { visible: true },
    marker: { colors: cuts.map((cut) => ruleColour(most(cut))), line: { width: 1,
      color: colour("--panel") } },
    customdata: cuts.map((cut) => `${count(cut.designs)} designs<br>` + Object.entries(cut.rules)
      .map(([rule, designs]) => `${count(designs)}: ${plain(words[rule])}`).join("<br>")),
    hovertemplate: "%{label}: %{customdata}<extra></extra>", textinfo: "label",
    root: { color: colour("--line") } }],
  layout: layout(narrow() ? 320 : 420, { margin: { l: 4, r: 4, t: 4, b: 4 } }) };
}
