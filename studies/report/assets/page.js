// Puts the parts that there is data for on the page, and asks for newer data while a search runs.
"use strict";
const ASK_EVERY_MS = 1000, MISSES = 5;

function madeBy() {
  const rows = DATA.sources.map((source) => [source.name, source.kind, source.command || "-"]);
  return section("made", "How this page was made",
    el("pre", {}, DATA.command), el("p", { class: "soft" }, `${DATA.program}. Every time and energy `
      + "on this page is predicted; nothing was measured on a board. Energies have 80 % limits."),
    rows.length ? table(["file", "holds", "made by"], rows, { words: true }) : null);
}

function build() {
  const several = Object.keys(DATA.sheets).length > 1;
  const parts = [
    DATA.search && searchSection(), DATA.comparison && comparisonSection(),
    DATA.what_if && whatIfSection(), DATA.proof && proofSection(),
    (Object.keys(DATA.sheets).length || DATA.search) && sheetSection(),
    several && sidesSection(),
  ].filter(Boolean);
  const nodes = [...parts.map((part) => part.node), madeBy()];
  const nav = el("nav", {}, ...nodes.map((node) => el("a", { href: `#${node.id}` },
    node.querySelector("h2").firstChild.textContent.replace(/: $/, ""))));
  document.getElementById("page").replaceChildren(
    el("h1", {}, DATA.title), el("p", { class: "soft", id: "state" }),
    ...DATA.notes.map((note) => el("p", { class: "soft" }, note)), nav, ...nodes);
  for (const part of parts) part.start();
  watchTheme();
  return parts;
}

/** Shows what the search says until it ends, or does not answer MISSES times in a row. */
async function follow(parts, missed = 0) {
  const state = document.getElementById("state");
  try {
    const answer = await fetch("live.json", { cache: "no-store" });
    if (answer.ok) {
      const found = await answer.json();
      DATA.search = found.search;
      state.textContent = found.state;
      if (parts.length) parts[0].again();
      if (found.done) return;
    }
    missed = 0;
  } catch {
    missed += 1;
  }
  if (missed < MISSES) setTimeout(() => follow(parts, missed), ASK_EVERY_MS);
  else state.textContent = "The search does not answer any more; this is the last that it said.";
}

const built = build();
if (DATA.live) follow(built);
