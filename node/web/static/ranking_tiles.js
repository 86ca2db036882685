// The row of tiles and the large pictures below it: the chosen slice between its neighbours.

import { draw, fetchSlice, place, View } from "./slice.js";

const DRAG_PX = 6;

export class Tiles {
  constructor(row, large, words, project, mode) {
    Object.assign(this, { row, large, words, project, mode });
    this.view = new View(() => this.#paint());
    this.tiles = new Map(); // item -> { tile, values, canvas, button }
    this.onFocus = () => {};
    this.onDrop = () => {};
    this.stages = (mode === "rank" ? [-1, 0, 1] : [0]).map((offset) => this.#stage(offset));
    addEventListener("resize", () => this.#paint());
  }

  /** Fetch the pixels of a batch and build its tiles. */
  async open(tiles) {
    const values = await Promise.all(tiles.map(({ item }) => fetchSlice(`/ranking/${this.project}/slices/${item}`)));
    this.tiles = new Map(tiles.map((tile, at) => [tile.item, { tile, values: values[at], ...this.#button(tile) }]));
    const home = tiles[0].window;
    if (home[0] !== this.view.home.centre || home[1] !== this.view.home.width) this.view.setHome(home);
    this.row.hidden = this.mode === "single";
  }

  /** Put the tiles in the batch's order and show its marks. */
  draw(batch) {
    this.batch = batch;
    const wanted = batch.order.map((item) => this.tiles.get(item).holder);
    if (wanted.some((holder, at) => this.row.children[at] !== holder)) this.row.replaceChildren(...wanted);
    batch.order.forEach((item, at) => {
      const { button, holder } = this.tiles.get(item);
      const marks = [batch.artefacts.has(item) ? "artefact" : "", batch.ties.has(item) ? "equal to its right neighbour" : ""];
      button.tabIndex = at === batch.focus ? 0 : -1;
      button.classList.toggle("chosen", at === batch.focus);
      button.setAttribute("aria-label", [`place ${at + 1} of ${batch.order.length}`, ...marks.filter(Boolean)].join(", "));
      holder.classList.toggle("artefact", batch.artefacts.has(item));
      holder.classList.toggle("tied", batch.ties.has(item));
      holder.querySelector(".place").textContent = at + 1;
    });
    this.#paint();
  }

  focus(batch) {
    this.tiles.get(batch.item())?.button.focus({ preventScroll: true });
  }

  #paint() {
    if (!this.batch) return;
    const { centre, width } = this.view.window;
    for (const { tile, values, canvas } of this.tiles.values()) {
      draw(canvas, values, tile.rows, tile.columns, this.view.window);
      place(canvas, canvas.parentElement, tile.rows, tile.columns, tile.aspect, { zoom: 1, x: 0, y: 0 });
    }
    for (const { box, canvas, label, offset } of this.stages) {
      const at = this.batch.focus + offset;
      const shown = this.tiles.get(this.batch.order[at]);
      canvas.hidden = !shown;
      label.textContent = shown && this.mode === "rank" ? `place ${at + 1}` : "";
      label.hidden = !label.textContent;
      if (!shown) continue;
      draw(canvas, shown.values, shown.tile.rows, shown.tile.columns, this.view.window);
      place(canvas, box, shown.tile.rows, shown.tile.columns, shown.tile.aspect, this.view);
    }
    const unit = this.tiles.get(this.batch.item()).tile.unit;
    this.words.textContent = `C ${Math.round(centre)} W ${Math.round(width)} ${unit} zoom ${this.view.zoom.toFixed(1)}`;
  }

  #stage(offset) {
    const box = document.createElement("div");
    box.className = offset === 0 ? "stage middle" : "stage";
    const canvas = document.createElement("canvas");
    const label = document.createElement("span");
    label.className = "place";
    box.append(canvas, label);
    this.large.append(box);
    this.view.drag(box);
    box.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.view.scale(event.deltaY < 0 ? 1.15 : 0.87);
    }, { passive: false });
    return { box, canvas, label, offset };
  }

  #button({ item }) {
    const holder = document.createElement("li");
    const button = document.createElement("button");
    const canvas = document.createElement("canvas");
    const number = document.createElement("span");
    button.type = "button";
    button.className = "tile";
    button.dataset.item = item;
    number.className = "place";
    button.append(canvas);
    holder.append(button, number);
    button.addEventListener("pointerdown", (event) => this.#take(event, item, holder));
    button.addEventListener("click", () => this.onFocus(this.batch.order.indexOf(item)));
    return { holder, button, canvas };
  }

  /** Follow the pointer; the tile goes where it is let go. */
  #take(event, item, holder) {
    if (event.button !== 0) return;
    event.preventDefault();
    const from = this.batch.order.indexOf(item);
    const boxes = [...this.row.children].map((one) => one.getBoundingClientRect());
    const target = (x) => boxes.findLastIndex((box, at) => at === 0 || x >= box.left);
    let dragged = false;
    holder.firstChild.setPointerCapture(event.pointerId);
    const move = (now) => {
      dragged ||= Math.abs(now.clientX - event.clientX) > DRAG_PX;
      if (!dragged) return;
      holder.classList.add("dragged");
      holder.style.translate = `${now.clientX - event.clientX}px 0`;
      [...this.row.children].forEach((one, at) => one.classList.toggle("target", at === target(now.clientX) && at !== from));
    };
    const end = (last) => {
      for (const [name, listener] of [["pointermove", move], ["pointerup", end], ["pointercancel", end]]) {
        holder.firstChild.removeEventListener(name, listener);
      }
      holder.style.translate = "";
      holder.classList.remove("dragged");
      for (const one of this.row.children) one.classList.remove("target");
      if (dragged && last.type === "pointerup") this.onDrop(from, target(last.clientX));
      else this.onFocus(from);
    };
    holder.firstChild.addEventListener("pointermove", move);
    holder.firstChild.addEventListener("pointerup", end);
    holder.firstChild.addEventListener("pointercancel", end);
  }
}
