// What every page shares: theme, the list of keys, saying something, and requests with the CSRF token.

const token = document.querySelector('meta[name="csrf-token"]').content;
const said = document.getElementById("said");
let silence = 0;

/** Say something to everybody, screen readers included, for a few seconds. */
export function say(text) {
  said.textContent = text;
  clearTimeout(silence);
  silence = setTimeout(() => { said.textContent = ""; }, 6000);
}

/** Send JSON and return the parsed answer; throws an Error with the server's words when it refuses. */
export async function send(path, body, method = "POST") {
  const response = await fetch(path, {
    method,
    headers: { "Content-Type": "application/json", "X-CSRF-Token": token },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

/** Why the server refused, in its own words. */
export async function reason(response) {
  if (response.status === 401) return "You are no longer signed in. Reload the page.";
  const answer = await response.json().catch(() => ({}));
  return answer.error || `The server answered ${response.status}.`;
}

/** Whether a key press belongs to a field that takes text. */
export function typing(event) {
  const field = event.target.closest("input:not([type=checkbox]):not([type=range]), textarea, select");
  return Boolean(field) || event.ctrlKey && event.key !== "z" || event.metaKey && event.key !== "z" || event.altKey;
}

/** Give bars their length; a style attribute in the page would break the content security policy. */
export function fillMeters(root = document) {
  for (const bar of root.querySelectorAll("[data-fill]")) bar.style.width = `${100 * Number(bar.dataset.fill)}%`;
}

document.getElementById("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  document.cookie = `falx_theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax`;
});

const keys = document.getElementById("keys");
document.getElementById("keys-button")?.addEventListener("click", () => keys.showModal());
document.addEventListener("keydown", (event) => {
  if (event.key !== "?" || typing(event)) return;
  if (keys.open) keys.close(); else keys.showModal();
});
fillMeters();
