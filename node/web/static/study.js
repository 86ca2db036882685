// The viewer of a study's page: slices, heatmap, and the bar of evidence.

import { fillMeters, reason, typing } from "./frame.js";
import { draw, fetchSlice, place, View } from "./slice.js";

const study = document.querySelector(".viewer").dataset.study;
const stage = document.getElementById("stage");
const canvas = document.getElementById("canvas");
const heatFrame = document.getElementById("heat-frame");
const heatButton = document.getElementById("heat");
const where = document.getElementById("where");
const evidence = document.getElementById("evidence");
const problem = document.getElementById("problem");
const select = document.getElementById("series");
const view = new View(() => render());

let series = null; // what /slices answered
let values = new Map(); // index -> Promise of Int16Array
let index = 0;
let heat = new Map(); // index -> URL of the heatmap's frame
let heatOn = false;
let shares = []; // evidence of each slice

const path = () => `/studies/${study}/series/${select.value}/slices`;

async function open() {
  problem.hidden = true;
  series = null;
  values = new Map();
  heat = new Map();
  evidence.replaceChildren();
  if (!select.value) return;
  const response = await fetch(path());
  if (!response.ok) return complain(await reason(response));
  series = await response.json();
  view.setHome(series.window);
  showEvidence();
  await openHeat();
  index = shares.length ? strongest() : Math.floor(series.slices / 2);
  view.reset();
  show(index);
}

function complain(text) {
  problem.textContent = text;
  problem.hidden = false;
}

function slice(at) {
  if (!values.has(at)) values.set(at, fetchSlice(`${path()}/${at}`));
  return values.get(at);
}

async function show(at) {
  if (!series) return;
  index = Math.max(0, Math.min(series.slices - 1, at));
  const wanted = index;
  try {
    await slice(wanted);
  } catch (error) {
    return complain(error.message);
  }
  if (wanted === index) render();
  for (const next of [wanted + 1, wanted - 1]) if (next >= 0 && next < series.slices) slice(next).catch(() => {});
}

async function render() {
  if (!series) return;
  const at = index;
  const drawn = await slice(at);
  if (at !== index) return;
  draw(canvas, drawn, series.rows, series.columns, view.window);
  const heated = heatOn && heat.has(index);
  if (heated) heatFrame.src = heat.get(index);
  heatFrame.hidden = !heated;
  canvas.hidden = heated;
  for (const element of [canvas, heatFrame]) place(element, stage, series.rows, series.columns, series.aspect, view);
  const source = series.sources[index];
  where.textContent = `slice ${index + 1} of ${series.slices}, ${source.position_mm} mm, `
    + `C ${Math.round(view.window.centre)} W ${Math.round(view.window.width)} ${series.unit}`
    + (heatOn && !heated ? ", no heatmap here" : "");
  evidence.querySelectorAll("button").forEach((bar, i) => {
    bar.setAttribute("aria-pressed", String(i === index));
    bar.tabIndex = i === index ? 0 : -1;
  });
}

const task = () => [...document.querySelectorAll("[data-task]")].find((card) => card.dataset.series === select.value);

function showEvidence() {
  const stored = JSON.parse(task()?.querySelector(".slices")?.textContent || "[]");
  shares = stored.length === series.slices ? stored : [];
  const words = document.getElementById("evidence-words");
  words.textContent = shares.length
    ? "Wide bar: probability of the slice. Narrow bar: its share of the attention. Click a bar to see the slice."
    : "No evidence per slice for this series.";
  const most = Math.max(...shares.map((one) => one.attention), 1e-9);
  shares.forEach((one, at) => {
    const bar = document.createElement("button");
    bar.type = "button";
    bar.title = `slice ${at + 1}: probability ${one.probability.toFixed(2)}, attention ${one.attention.toFixed(3)}`;
    bar.setAttribute("aria-label", bar.title);
    const height = document.createElement("i");
    height.style.height = `${Math.max(2, 100 * one.probability)}%`;
    const attention = document.createElement("b");
    attention.style.height = `${100 * one.attention / most}%`;
    bar.append(height, attention);
    bar.addEventListener("click", () => show(at));
    evidence.append(bar);
  });
}

const strongest = () => shares.reduce((best, one, at) => (one.probability > shares[best].probability ? at : best), 0);

async function openHeat() {
  const card = task();
  heatButton.disabled = true;
  if (!card?.dataset.heat) return;
  const response = await fetch(`/studies/${study}/tasks/${card.dataset.task}/heatmap`);
  if (!response.ok) { heatButton.title = await reason(response); return; }
  for (const { object, frame, position_mm: position } of (await response.json()).frames) {
    const at = series.sources.reduce(
      (best, one, i) => (Math.abs(one.position_mm - position) < Math.abs(series.sources[best].position_mm - position) ? i : best), 0);
    heat.set(at, `/studies/${study}/objects/${object}/${frame}.png`);
  }
  heatButton.disabled = heat.size === 0;
}

function toggleHeat() {
  if (heatButton.disabled) return;
  heatOn = !heatOn;
  heatButton.setAttribute("aria-pressed", String(heatOn));
  render();
}

heatButton.addEventListener("click", toggleHeat);
select.addEventListener("change", open);
addEventListener("resize", render);
view.drag(stage);
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.ctrlKey) view.scale(event.deltaY < 0 ? 1.15 : 0.87);
  else show(index + Math.sign(event.deltaY));
}, { passive: false });

const KEYS = {
  ArrowDown: () => show(index + 1), ArrowUp: () => show(index - 1), ArrowRight: () => show(index + 1),
  ArrowLeft: () => show(index - 1), Home: () => show(0), End: () => show(series.slices - 1),
  h: toggleHeat, e: () => { if (shares.length) show(strongest()); }, w: () => { location.href = "/"; },
};
document.addEventListener("keydown", (event) => {
  if (typing(event)) return;
  if (KEYS[event.key]) { event.preventDefault(); KEYS[event.key](); } else if (view.key(event.key)) event.preventDefault();
});

fillMeters();
open();
