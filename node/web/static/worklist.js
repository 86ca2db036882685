// The worklist: live rows, filter, search, and the keyboard.

import { fillMeters, typing } from "./frame.js";

const form = document.getElementById("filter");
const rows = document.getElementById("rows");
const live = document.getElementById("live");
const POLL_MS = 4000;
let shown = "";
let asked = 0;
let page = 1;

/** Fetch the rows and put them in place when they differ, keeping the focus on the same study. */
async function refresh() {
  const mine = ++asked;
  const body = new FormData(form);
  body.set("number", page);
  let html;
  try {
    const response = await fetch("/", { method: "POST", headers: { "X-Part": "rows" }, body });
    if (!response.ok) throw new Error(String(response.status));
    html = await response.text();
    live.textContent = "live";
  } catch (error) {
    live.textContent = error.message === "401" ? "signed out: reload the page" : "no answer from falx, trying again";
    return;
  }
  if (mine !== asked || html === shown) return;
  shown = html;
  const focused = document.activeElement?.closest("tr")?.dataset.study;
  const chip = document.activeElement?.dataset?.kind;
  rows.innerHTML = html;
  fillMeters(rows);
  if (focused) rows.querySelector(`tr[data-study="${CSS.escape(focused)}"] .open`)?.focus({ preventScroll: true });
  if (chip) rows.querySelector(`[data-kind="${chip}"]`)?.focus();
}

function restart() {
  page = 1;
  refresh();
}

form.addEventListener("submit", (event) => { event.preventDefault(); restart(); });
form.addEventListener("change", restart);
let pause = 0;
form.search.addEventListener("input", () => { clearTimeout(pause); pause = setTimeout(restart, 250); });

rows.addEventListener("click", (event) => {
  const chip = event.target.closest("[data-kind]");
  const step = event.target.closest("[data-step]");
  const row = event.target.closest("tr[data-study]");
  if (chip) { form.state.value = chip.dataset.kind; restart(); }
  else if (step) turn(Number(step.dataset.step));
  else if (row && !event.target.closest("a") && !getSelection().toString()) row.querySelector(".open").click();
});

function turn(step) {
  const pages = Number(rows.querySelector(".pager").dataset.pages);
  page = Math.min(pages, Math.max(1, page + step));
  refresh();
}

function move(step) {
  const links = [...rows.querySelectorAll(".open")];
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at + step))]?.focus();
}

const KEYS = {
  j: () => move(1), ArrowDown: () => move(1), k: () => move(-1), ArrowUp: () => move(-1),
  "/": () => form.search.focus(), f: () => form.state.focus(), n: () => turn(1), p: () => turn(-1),
};
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && event.target === form.search) { form.search.blur(); return; }
  if (typing(event) || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

setInterval(() => { if (!document.hidden) refresh(); }, POLL_MS);
