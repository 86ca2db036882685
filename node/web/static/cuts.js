// Cut-points: bisect the sorted strip by "lower or higher?", then nudge, then accept.

import { reason, say, send, typing } from "./frame.js";
import { draw, fetchSlice, place, View } from "./slice.js";

const desk = document.getElementById("desk");
const project = desk.dataset.project;
const classes = JSON.parse(desk.dataset.classes);
const question = document.getElementById("question");
const row = document.getElementById("row");
const store = document.getElementById("store");
const AROUND = 4;
const view = new View(() => paint());
const pixels = new Map(); // item -> Promise of values

let strip = null;
let boundary = 0;
let range = [0, 0]; // the cut lies before strip.tiles[k] for some k in range
let history = [];
let stage = null;

const decided = () => range[0] === range[1];
const middle = () => Math.floor((range[0] + range[1]) / 2);

async function open() {
  const response = await fetch(`/ranking/${project}/cuts/strip`);
  if (!response.ok) return say(await reason(response));
  take(await response.json());
  if (strip.tiles.length === 0) { question.textContent = "Nothing has been ranked yet."; return; }
  view.setHome(strip.tiles[0].window);
  stage = document.createElement("div");
  stage.className = "stage middle";
  stage.append(document.createElement("canvas"));
  document.getElementById("large").append(stage);
  view.drag(stage);
  const unset = classes.slice(1).findIndex((_, k) => !(k in strip.mine));
  begin(Math.max(0, unset));
}

function take(answer) {
  strip = answer;
  document.querySelectorAll(".boundary").forEach((button, k) => {
    const score = strip.mine[k];
    button.classList.toggle("set", score !== undefined);
    button.querySelector("small").textContent = score === undefined ? "not set" : score.toFixed(2);
  });
  const { summary } = strip;
  const ready = strip.experts >= 2 && summary !== null;
  store.disabled = !ready;
  document.getElementById("outcome").textContent = summary === null
    ? "No complete set of cut-points yet."
    : `${classes.map((word, k) => `${word} ${summary.counts[k]}`).join(", ")}; ${summary.uncertain} uncertain; `
      + `${strip.experts} expert${strip.experts === 1 ? "" : "s"}`
      + (summary.agreement.kappa_cuts === null ? "" : `, kappa ${summary.agreement.kappa_cuts.toFixed(2)}`)
      + (ready ? "" : "; labels need two experts");
  drawScale();
}

function begin(which) {
  boundary = which;
  history = [];
  const score = strip.mine[boundary];
  const lower = boundary > 0 && (boundary - 1) in strip.mine ? before(strip.mine[boundary - 1]) : 0;
  range = score === undefined ? [lower, strip.tiles.length] : [before(score), before(score)];
  show();
}

/** Index of the first tile above a score. */
function before(score) {
  const at = strip.tiles.findIndex((tile) => tile.score >= score);
  return at === -1 ? strip.tiles.length : at;
}

function judge(step) {
  history.push([...range]);
  if (decided()) {
    const at = Math.max(0, Math.min(strip.tiles.length, range[0] + step));
    range = [at, at];
  } else if (step < 0) range = [middle() + 1, range[1]]; // the slice is of the lower class: the cut lies above it
  else range = [range[0], middle()];
  show();
}

function undo() {
  if (history.length === 0) return;
  range = history.pop();
  show();
}

function cutScore() {
  const below = strip.tiles[range[0] - 1]?.score ?? strip.tiles[0].score - 0.5;
  const above = strip.tiles[range[0]]?.score ?? strip.tiles.at(-1).score + 0.5;
  return (below + above) / 2;
}

async function accept() {
  if (!decided()) return say("First say of each slice whether it is lower or higher.");
  try {
    take(await send(`/ranking/${project}/cuts`, { boundary, score: cutScore() }, "PUT"));
    say("cut-point kept");
    const unset = classes.slice(1).findIndex((_, k) => !(k in strip.mine));
    begin(unset === -1 ? boundary : unset);
  } catch (error) {
    say(error.message);
  }
}

function show() {
  const at = decided() ? Math.min(range[0], strip.tiles.length - 1) : middle();
  question.dataset.boundary = boundary;
  question.dataset.item = decided() ? "" : strip.tiles[at].item;
  question.textContent = decided()
    ? `The cut between ${classes[boundary]} and ${classes[boundary + 1]} lies where the line is. Move it with the arrows, or accept.`
    : `Is the large slice ${classes[boundary]} or lower (←), or ${classes[boundary + 1]} or higher (→)? `
      + `${range[1] - range[0]} slices are still open.`;
  document.querySelectorAll(".boundary").forEach((button, k) => button.setAttribute("aria-pressed", String(k === boundary)));
  const first = Math.max(0, Math.min(strip.tiles.length - 2 * AROUND, at - AROUND));
  row.replaceChildren(...strip.tiles.slice(first, first + 2 * AROUND).map((tile, k) => neighbour(tile, first + k, at)));
  paint();
  drawScale();
}

function neighbour(tile, index, at) {
  const holder = document.createElement("li");
  const box = document.createElement("div");
  const canvas = document.createElement("canvas");
  box.className = index === at ? "tile chosen" : "tile";
  box.append(canvas);
  holder.append(box);
  holder.dataset.item = tile.item;
  holder.classList.toggle("cut", decided() && index === range[0]);
  return holder;
}

function values(item) {
  if (!pixels.has(item)) pixels.set(item, fetchSlice(`/ranking/${project}/slices/${item}`));
  return pixels.get(item);
}

async function paint() {
  if (!stage) return;
  const at = decided() ? Math.min(range[0], strip.tiles.length - 1) : middle();
  const tile = strip.tiles[at];
  document.getElementById("window").textContent = `C ${Math.round(view.window.centre)} W ${Math.round(view.window.width)}`;
  const plain = { zoom: 1, x: 0, y: 0 };
  for (const holder of [...row.children]) {
    const own = strip.tiles.find((one) => one.item === Number(holder.dataset.item));
    values(own.item).then((drawn) => {
      const canvas = holder.querySelector("canvas");
      draw(canvas, drawn, own.rows, own.columns, view.window);
      place(canvas, canvas.parentElement, own.rows, own.columns, own.aspect, plain);
    });
  }
  const drawn = await values(tile.item);
  const canvas = stage.firstChild;
  draw(canvas, drawn, tile.rows, tile.columns, view.window);
  place(canvas, stage, tile.rows, tile.columns, tile.aspect, view);
}

/** Dots for slices, grey band for what is open, a line for each cut-point. */
function drawScale() {
  const svg = document.getElementById("scale");
  const [low, high] = [strip.tiles[0]?.score ?? 0, strip.tiles.at(-1)?.score ?? 1];
  const x = (score) => 10 + 980 * (score - low) / Math.max(high - low, 1e-9);
  svg.setAttribute("viewBox", "0 0 1000 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.replaceChildren();
  const add = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    svg.append(element);
  };
  const open = strip.tiles.slice(range[0], range[1]);
  if (open.length) add("rect", { x: x(open[0].score), y: 2, width: Math.max(2, x(open.at(-1).score) - x(open[0].score)), height: 36, class: "open" });
  for (const tile of strip.tiles) add("line", { x1: x(tile.score), x2: x(tile.score), y1: 14, y2: 26, class: "dot" });
  for (const score of Object.values(strip.mine)) add("line", { x1: x(score), x2: x(score), y1: 2, y2: 38, class: "mine" });
  for (const score of strip.summary?.cuts ?? []) add("line", { x1: x(score), x2: x(score), y1: 2, y2: 38, class: "median" });
}

store.addEventListener("click", async () => {
  try {
    say(`label set ${(await send(`/ranking/${project}/cuts/labels`, {})).set} stored`);
  } catch (error) {
    say(error.message);
  }
});
document.getElementById("lower").addEventListener("click", () => judge(-1));
document.getElementById("higher").addEventListener("click", () => judge(1));
document.getElementById("accept").addEventListener("click", accept);
document.getElementById("undo").addEventListener("click", undo);
document.querySelectorAll(".boundary").forEach((button, k) => button.addEventListener("click", () => begin(k)));
addEventListener("resize", paint);

document.addEventListener("keydown", (event) => {
  if (typing(event) || document.getElementById("keys").open) return;
  const actions = { ArrowLeft: () => judge(-1), ArrowRight: () => judge(1), u: undo, Enter: accept };
  if (event.key === "Enter" && event.target.closest(".actions, #store")) return; // a focused button acts for itself
  if (actions[event.key]) { event.preventDefault(); actions[event.key](); } else if (view.key(event.key)) event.preventDefault();
});

open();
