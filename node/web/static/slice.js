// One slice on a canvas: 16-bit values, window and level, zoom and pan. Knows no page.

/** Fetch a slice of rows x columns little-endian int16 values. */
export async function fetchSlice(path) {
  const response = await fetch(path);
  if (!response.ok) {
    const answer = await response.json().catch(() => ({}));
    throw new Error(answer.error || `The server answered ${response.status}.`);
  }
  return new Int16Array(await response.arrayBuffer());
}

/** Draw values (rows x columns) with window {centre, width} into a canvas of the same size. */
export function draw(canvas, values, rows, columns, window) {
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const low = window.centre - window.width / 2;
  const scale = 255 / window.width;
  for (let i = 0; i < values.length; i++) {
    const grey = Math.max(0, Math.min(255, (values[i] - low) * scale)) | 0;
    pixels[i] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
  }
  context.putImageData(image, 0, 0);
}

/** Fit an element of columns x rows pixels (rows stretched by aspect) into a box, zoomed and moved by view. */
export function place(element, box, rows, columns, aspect, view) {
  const fit = Math.min(box.clientWidth / columns, box.clientHeight / (rows * aspect));
  const width = columns * fit * view.zoom;
  const height = rows * aspect * fit * view.zoom;
  element.style.width = `${width}px`;
  element.style.height = `${height}px`;
  element.style.left = `${(box.clientWidth - width) / 2 + view.x}px`;
  element.style.top = `${(box.clientHeight - height) / 2 + view.y}px`;
}

/** The state of window and zoom, with the ways to change it; `changed` is called after each change. */
export class View {
  constructor(changed) {
    this.changed = changed;
    this.home = { centre: 0, width: 1 };
    this.window = { ...this.home };
    this.zoom = 1;
    this.x = 0;
    this.y = 0;
  }

  setHome([centre, width]) {
    this.home = { centre, width };
    this.window = { ...this.home };
  }

  reset() {
    this.zoom = 1;
    this.x = 0;
    this.y = 0;
    this.window = { ...this.home };
    this.changed();
  }

  level(byCentre, byWidth) {
    this.window.centre += byCentre * this.home.width;
    this.window.width = Math.max(this.home.width / 200, this.window.width + byWidth * this.home.width);
    this.changed();
  }

  scale(factor) {
    this.zoom = Math.max(1, Math.min(12, this.zoom * factor));
    if (this.zoom === 1) { this.x = 0; this.y = 0; }
    this.changed();
  }

  pan(dx, dy) {
    if (this.zoom === 1) return;
    this.x += dx;
    this.y += dy;
    this.changed();
  }

  /** Keys [ ] , . + - 0; returns whether the key was one of them. */
  key(key) {
    const actions = {
      "[": () => this.level(0, -0.1), "]": () => this.level(0, 0.1),
      ",": () => this.level(-0.05, 0), ".": () => this.level(0.05, 0),
      "+": () => this.scale(1.25), "=": () => this.scale(1.25), "-": () => this.scale(0.8), 0: () => this.reset(),
    };
    actions[key]?.();
    return key in actions;
  }

  /** Dragging changes window and level; with Shift, or with the middle button, it moves the picture. */
  drag(element, wanted = () => true) {
    element.addEventListener("pointerdown", (event) => {
      if (event.button === 2 || !wanted(event)) return;
      event.preventDefault();
      element.focus({ preventScroll: true });
      element.setPointerCapture(event.pointerId);
      const move = (now) => {
        if (event.shiftKey || event.button === 1) this.pan(now.movementX, now.movementY);
        else this.level(now.movementY / 400, now.movementX / 300);
      };
      element.addEventListener("pointermove", move);
      element.addEventListener("pointerup", () => element.removeEventListener("pointermove", move), { once: true });
    });
  }
}
