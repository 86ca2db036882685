// The embedding map: a point a report, wheel to zoom, draw round a group to choose it.

import { reason, say } from "./frame.js";

const CLOSE_PX = 6;

export class ReportMap {
  constructor(canvas, words, onLasso) {
    Object.assign(this, { canvas, words, onLasso, points: [], marked: new Set(), label: 0, path: [] });
    this.view = { zoom: 1, x: 0, y: 0 };
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("wheel", (event) => this.#zoom(event), { passive: false });
    addEventListener("resize", () => this.draw());
  }

  async load(base, label) {
    const response = await fetch(`${base}/map`);
    if (!response.ok) return say(await reason(response));
    this.points = (await response.json()).points;
    this.colour(label);
    this.words.textContent = this.points.length
      ? `${this.points.length} reports; coloured by the label shown. Draw round points to tick them, wheel to zoom.`
      : "No map yet: falx labels map makes one.";
  }

  colour(label) {
    this.label = Math.max(0, label);
    this.draw();
  }

  mark(ids) {
    this.marked = ids;
    this.draw();
  }

  draw() {
    const { canvas } = this;
    if (!canvas.clientWidth) return;
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = canvas.clientHeight * devicePixelRatio;
    const context = canvas.getContext("2d");
    context.scale(devicePixelRatio, devicePixelRatio);
    const style = getComputedStyle(canvas);
    const colour = (name) => getComputedStyle(document.querySelector(`.key.${name}`)).color; // as the theme resolves it
    const colours = { 1: colour("present"), 0: colour("absent"), "?": colour("undecided") };
    for (const point of this.points) {
      const [x, y] = this.#at(point);
      context.beginPath();
      context.arc(x, y, this.marked.has(point.id) ? 5 : 3, 0, 7);
      context.fillStyle = colours[point.labels[this.label]];
      context.fill();
      if (this.marked.has(point.id)) { context.strokeStyle = style.color; context.lineWidth = 1.5; context.stroke(); }
    }
    if (this.path.length > 1) {
      context.beginPath();
      this.path.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.strokeStyle = style.color;
      context.setLineDash([5, 4]);
      context.stroke();
    }
  }

  #at({ x, y }) {
    const { zoom, x: dx, y: dy } = this.view;
    return [(x * 0.94 + 0.03) * this.canvas.clientWidth * zoom + dx, (y * 0.94 + 0.03) * this.canvas.clientHeight * zoom + dy];
  }

  #zoom(event) {
    event.preventDefault();
    const zoom = Math.max(1, Math.min(20, this.view.zoom * (event.deltaY < 0 ? 1.2 : 0.83)));
    const share = zoom / this.view.zoom;
    this.view = zoom === 1 ? { zoom: 1, x: 0, y: 0 } : {
      zoom, x: event.offsetX - (event.offsetX - this.view.x) * share, y: event.offsetY - (event.offsetY - this.view.y) * share,
    };
    this.draw();
  }

  #start(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.path = [[event.offsetX, event.offsetY]];
    const move = (now) => { this.path.push([now.offsetX, now.offsetY]); this.draw(); };
    this.canvas.addEventListener("pointermove", move);
    this.canvas.addEventListener("pointerup", () => {
      this.canvas.removeEventListener("pointermove", move);
      const path = this.path;
      this.path = [];
      const wide = path.some(([x, y]) => Math.hypot(x - path[0][0], y - path[0][1]) > CLOSE_PX);
      const found = wide ? this.points.filter((point) => inside(this.#at(point), path)).map((point) => point.row) : [];
      this.draw();
      this.onLasso(found);
    }, { once: true });
  }
}

/** Whether a point lies in a polygon (even-odd rule). */
function inside([x, y], polygon) {
  let within = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [xi, yi] = polygon[i];
    const [xj, yj] = polygon[j];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
  }
  return within;
}
