// The ranking page: order a batch by mouse or keyboard; every action is saved before the next counts.

import { reason, say, send, typing } from "./frame.js";
import { Batch } from "./ranking_batch.js";
import { Tiles } from "./ranking_tiles.js";

const desk = document.getElementById("desk");
const { project, mode, lowest, highest } = desk.dataset;
const saved = document.getElementById("saved");
const row = document.getElementById("row");
const tiles = new Tiles(row, document.getElementById("large"), document.getElementById("window"), project, mode);
let batch = null;
let saving = Promise.resolve();
let busy = false;

async function open() {
  const response = await fetch(`/ranking/${project}/batch?mode=${mode}`);
  if (!response.ok) return say(await reason(response));
  return show(await response.json());
}

async function show(answer) {
  document.getElementById("nothing").hidden = answer.batch !== null;
  for (const id of ["row", "actions", "large"]) document.getElementById(id).hidden = answer.batch === null;
  batch = answer.batch === null ? null : new Batch(answer.batch, answer.arrangement);
  if (batch) {
    await tiles.open(answer.tiles);
    refresh();
  }
  busy = false;
  showProgress(answer.progress);
}

function showProgress(now) {
  const single = mode === "single";
  const done = single ? now.single_done : now.views_done;
  const needed = single ? now.slices : now.views_needed;
  const left = single ? now.hours_left_single : now.hours_left;
  document.getElementById("done").style.width = `${100 * done / Math.max(1, needed)}%`;
  document.getElementById("progress").textContent =
    `${done} of ${needed} ${single ? "labels" : "views"}, ${now.batches_mine} batches of yours, `
    + `${span(now.hours_all)} worked (${span(now.hours_mine)} yours), about ${span(left)} left`;
}

const span = (hours) => (hours < 1 ? `${Math.round(hours * 60)} min` : `${hours.toFixed(1)} h`);

function refresh() {
  tiles.draw(batch);
}

/** Save the newest state; while a save is on its way, only the newest waits. */
function save() {
  const { id } = batch;
  const body = batch.stored();
  saved.textContent = "saving";
  saving = saving.catch(() => {}).then(() => keep(id, body));
  saving.catch(() => {});
}

async function keep(id, body) {
  if (batch?.id !== id) return;
  try {
    await send(`/ranking/${project}/batches/${id}`, body, "PUT");
    saved.textContent = "saved";
  } catch (error) {
    saved.textContent = `not saved: ${error.message}`;
    if (error instanceof TypeError) setTimeout(() => { if (batch?.id === id) save(); }, 3000); // no connection
    throw error;
  }
}

function act(change, words = "") {
  if (!batch || busy) return;
  change();
  refresh();
  save();
  if (words) say(words);
}

const place = () => `place ${batch.focus + 1} of ${batch.order.length}`;

function moveTo(to) {
  act(() => batch.moveTo(to));
  if (batch) say(`moved to ${place()}`);
}

function focus(to) {
  if (!batch) return;
  batch.focus = Math.max(0, Math.min(batch.order.length - 1, to));
  refresh();
  tiles.focus(batch);
}

async function finish(action) {
  if (!batch || busy) return; // keys pressed while the next batch comes would act on slices not yet seen
  busy = true;
  let done = "";
  try {
    await saving.catch(() => {});
    const answer = await send(`/ranking/${project}/batches/${batch.id}/${action}`, batch.stored());
    saved.textContent = "saved";
    await show(answer);
    done = action === "submit" ? "submitted" : "skipped";
  } catch (error) {
    done = error.message;
  } finally {
    busy = false;
  }
  say(done);
}

async function undo() {
  if (busy) return;
  if (batch?.undo()) { refresh(); save(); tiles.focus(batch); return; }
  busy = true;
  let done = "back in the last batch";
  try {
    await saving.catch(() => {});
    await show(await send(`/ranking/${project}/reopen`, { mode }));
  } catch (error) {
    done = error.message;
  } finally {
    busy = false;
  }
  say(done);
}

function answer(value) {
  if (!batch || busy) return;
  batch.choose(value);
  finish("submit");
}

function artefact() {
  if (!batch || busy) return;
  act(() => batch.toggleArtefact(), batch.artefacts.has(batch.item()) ? "usable again" : "marked as artefact");
  if (mode === "single") finish("submit");
}

const on = (id, what) => document.getElementById(id)?.addEventListener("click", what);
on("left", () => moveTo(batch.focus - 1));
on("right", () => moveTo(batch.focus + 1));
on("tie", () => act(() => batch.toggleTie()));
on("artefact", artefact);
on("undo", undo);
on("skip", () => finish("skip"));
on("submit", () => finish("submit"));
for (const button of document.querySelectorAll("[data-answer]")) {
  button.addEventListener("click", () => answer(Number(button.dataset.answer)));
}

tiles.onFocus = focus;
tiles.onDrop = (from, to) => { batch.focus = from; moveTo(to); };

const RANK_KEYS = { t: () => act(() => batch.toggleTie()), Enter: () => finish("submit") };
const KEYS = {
  x: artefact, u: undo, s: () => finish("skip"), ...(mode === "rank" ? RANK_KEYS : {}),
};

document.addEventListener("keydown", (event) => {
  if (typing(event) || document.getElementById("keys").open) return;
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (event.ctrlKey && event.key === "z") { event.preventDefault(); undo(); return; }
  if (event.key === "Enter" && event.target.closest("#actions")) return; // a focused button acts for itself
  if (step && mode === "rank") {
    event.preventDefault();
    if (event.shiftKey) moveTo(batch.focus + step);
    else focus(batch.focus + step);
    tiles.focus(batch);
  } else if (/^[1-9]$/.test(event.key) && batch) {
    event.preventDefault();
    const number = Number(event.key) - 1;
    if (mode === "single" && number < document.querySelectorAll("[data-answer]").length) answer(number);
    else if (mode === "rank" && number < batch.order.length) { moveTo(number); tiles.focus(batch); }
  } else if (KEYS[event.key]) {
    event.preventDefault();
    KEYS[event.key]();
  } else if (tiles.view.key(event.key)) {
    event.preventDefault();
  }
});

document.title = mode === "single" ? `One at a time · ${project}` : `${lowest} → ${highest} · ${project}`;
open();
