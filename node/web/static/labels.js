// The labelling page: a list, the chosen report with its evidence, its labels; corrections one by one or by group.

import { say, send, typing } from "./frame.js";
import { ReportMap } from "./labels_map.js";

const root = document.getElementById("labelling");
const names = JSON.parse(root.dataset.names);
const base = `/labels/${root.dataset.archive}`;
const at = (id) => document.getElementById(id);
const SIGNS = { 1: "present", 0: "absent", "?": "undecided" };
const NEXT = { 1: 0, 0: 1, "?": 1 };

let rows = [];
let after = 0;
let chosen = 0;
let report = null;
let lasso = []; // row ids of the last lasso
let how = "manual"; // how the ticked reports were found
const ticked = new Set();
const map = new ReportMap(at("map"), at("map-words"), (found) => { lasso = found; list(); });

const wanted = () => ({
  label: at("label").value, value: at("value").value === "" ? null : Number(at("value").value), after,
  search: at("search").value.trim(), regex: at("regex").checked, rows: lasso,
});

async function list(more = false) {
  if (!more) { after = 0; rows = []; ticked.clear(); }
  let answer;
  try {
    answer = await send(`${base}/list`, wanted());
  } catch (error) {
    return say(error.message);
  }
  rows.push(...answer.rows);
  after = answer.after ?? 0;
  at("more").hidden = !answer.after;
  how = lasso.length ? "lasso" : at("search").value.trim() ? (at("regex").checked ? "regex" : "keyword") : "manual";
  if (lasso.length) for (const row of rows) ticked.add(row.id);
  if (!answer.complete) say("The search took too long; these are the newest matches.");
  drawList();
  if (!more) await open(0);
}

function drawList() {
  at("reports").replaceChildren(...rows.map((row, index) => {
    const item = document.createElement("li");
    item.id = `report-${index}`;
    item.setAttribute("role", "option");
    item.setAttribute("aria-selected", String(ticked.has(row.id)));
    item.classList.toggle("chosen", index === chosen);
    item.classList.toggle("ticked", ticked.has(row.id));
    const found = names.filter((_, k) => row.labels[k] === "1").map((name) => name.replaceAll("_", " "));
    const first = document.createElement("b");
    first.textContent = `${row.modality} ${row.at} ${row.accession}`;
    const second = document.createElement("small");
    second.textContent = (found.join(", ") || "nothing present") + (row.flags.length ? ` (${row.flags.join(", ")})` : "");
    item.append(first, document.createElement("br"), second);
    if (row.corrected.length) item.append(" ✓");
    item.addEventListener("click", (event) => { if (event.ctrlKey || event.shiftKey) tick(index); else open(index); });
    return item;
  }));
  at("count").textContent = `${rows.length} reports`;
  at("ticked").textContent = `${ticked.size} ticked`;
  at("all").checked = rows.length > 0 && ticked.size === rows.length;
  map.mark(ticked);
}

async function open(index) {
  if (!rows.length) {
    report = null;
    at("text").textContent = "No report matches.";
    return;
  }
  chosen = Math.max(0, Math.min(rows.length - 1, index));
  const { id } = rows[chosen];
  try {
    const answer = await send(`${base}/report`, { report_id: id });
    if (rows[chosen]?.id !== id) return;
    report = answer;
  } catch (error) {
    return say(error.message);
  }
  rows[chosen].labels = report.labels;
  rows[chosen].corrected = report.corrected;
  drawList();
  drawReport();
  const item = at(`report-${chosen}`);
  item.scrollIntoView({ block: "nearest" });
  at("reports").setAttribute("aria-activedescendant", item.id);
}

function drawReport() {
  at("facts").textContent = [
    `report ${chosen + 1} of ${rows.length}`, report.modality, report.at, report.status, report.model,
    ...report.flags, report.text_changed ? "the text has changed since it was corrected" : "",
  ].filter(Boolean).join(" · ");
  at("text").replaceChildren(...report.parts.map(({ text, labels }) => {
    if (!labels.length) return document.createTextNode(text);
    const mark = document.createElement("mark");
    mark.textContent = text;
    mark.dataset.labels = labels.join(" ");
    mark.title = labels.map((name) => name.replaceAll("_", " ")).join(", ");
    return mark;
  }));
  names.forEach((name, k) => {
    const item = document.querySelector(`#labels [data-label="${name}"]`);
    const sign = report.labels[k];
    const p = report.probabilities[name];
    item.querySelector(".says").textContent = SIGNS[sign];
    item.className = { 1: "present", 0: "absent", "?": "undecided" }[sign] + (report.corrected.includes(name) ? " corrected" : "");
    item.querySelector("i").style.width = `${100 * (p ?? 0)}%`;
    item.querySelector(".p").textContent = p === undefined ? "" : p.toFixed(2);
  });
  at("history").replaceChildren(...report.history.map((made) => {
    const item = document.createElement("li");
    const sign = made.value === null ? "?" : made.value;
    item.textContent = `${made.label.replaceAll("_", " ")} ${SIGNS[sign]}: ${made.by}, ${made.at}, ${made.how}${made.undone ? ", undone" : ""}`;
    return item;
  }));
}

async function correct(ids, values, way, words) {
  try {
    await send(`${base}/correct`, { report_ids: ids, values, how: way, detail: way === "manual" || way === "accept" ? "" : at("search").value.trim() });
    say(words);
  } catch (error) {
    say(error.message);
    throw error;
  }
}

async function change(k) {
  if (!report) return;
  const value = NEXT[report.labels[k]];
  await correct([report.id], { [names[k]]: value }, "manual", `${names[k].replaceAll("_", " ")} ${SIGNS[value]}`);
  await open(chosen);
}

async function accept() {
  if (!report) return;
  const values = Object.fromEntries(names.map((name, k) => [name, report.labels[k] === "?" ? null : Number(report.labels[k])]));
  await correct([report.id], values, "accept", "accepted");
  await open(chosen + 1);
}

async function undo() {
  try {
    await send(`${base}/undo`, {});
    say("taken back");
    const here = chosen;
    await list();
    await open(here);
  } catch (error) {
    say(error.message);
  }
}

function tick(index) {
  const { id } = rows[index];
  if (!ticked.delete(id)) ticked.add(id);
  drawList();
}

function tickAll(on) {
  ticked.clear();
  if (on) for (const row of rows) ticked.add(row.id);
  drawList();
}

at("group").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!ticked.size) return say("Tick reports first.");
  const label = at("group-label").value;
  const value = event.submitter.value === "" ? null : Number(event.submitter.value);
  const ids = [...ticked];
  await correct(ids, { [label]: value }, how, `${label.replaceAll("_", " ")} set for ${ids.length} reports`);
  const here = chosen;
  await list();
  await open(here);
  if (!at("map-box").hidden) map.load(base, names.indexOf(at("label").value || "abnormal"));
});

async function toggleMap() {
  const box = at("map-box");
  box.hidden = !box.hidden;
  at("map-button").setAttribute("aria-pressed", String(!box.hidden));
  if (!box.hidden) await map.load(base, names.indexOf(at("label").value || "abnormal"));
  else if (lasso.length) { lasso = []; list(); }
}

let pause = 0;
at("search").addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(() => list(), 400); });
at("search").addEventListener("keydown", (event) => { if (event.key === "Escape" || event.key === "Enter") event.target.blur(); });
at("regex").addEventListener("change", () => list());
at("label").addEventListener("change", () => { map.colour(names.indexOf(at("label").value || "abnormal")); list(); });
at("value").addEventListener("change", () => list());
at("archive").addEventListener("change", () => { location.href = `/labels?archive=${encodeURIComponent(at("archive").value)}`; });
at("more").addEventListener("click", () => list(true));
at("all").addEventListener("change", (event) => tickAll(event.target.checked));
at("accept").addEventListener("click", accept);
at("undo").addEventListener("click", undo);
at("map-button").addEventListener("click", toggleMap);
document.querySelectorAll("#labels li button").forEach((button, k) => button.addEventListener("click", () => change(k)));

const KEYS = {
  j: () => open(chosen + 1), k: () => open(chosen - 1), a: accept, u: undo, m: toggleMap,
  " ": () => { if (rows.length) tick(chosen); }, t: () => tickAll(ticked.size < rows.length),
  "/": () => at("search").focus(), g: () => at("group-label").focus(),
  r: () => { at("regex").checked = !at("regex").checked; list(); },
};
document.addEventListener("keydown", (event) => {
  if (typing(event) || at("keys").open) return;
  if (/^[0-9]$/.test(event.key) && (Number(event.key) || 10) <= names.length) { event.preventDefault(); change((Number(event.key) || 10) - 1); return; }
  if (event.key === " " && event.target.closest("button, input")) return;
  if (!KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

list();
