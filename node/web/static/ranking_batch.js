// A batch in the rater's hands: order, ties, artefacts, the class of a single slice, and the way back. Pure state.

const MAX_HISTORY = 100;

export class Batch {
  constructor(id, arrangement) {
    this.id = id;
    this.history = [...arrangement.history];
    this.focus = 0;
    this.#restore(arrangement);
  }

  item() { return this.order[this.focus]; }

  moveTo(to) {
    const target = Math.max(0, Math.min(this.order.length - 1, to));
    if (target === this.focus) return;
    this.#remember();
    const [item] = this.order.splice(this.focus, 1);
    this.order.splice(target, 0, item);
    this.ties.delete(item); // a tie belongs to two neighbours; it ends when one leaves
    if (target > 0) this.ties.delete(this.order[target - 1]);
    this.focus = target;
  }

  toggleTie() {
    if (this.focus === this.order.length - 1) return;
    this.#remember();
    if (!this.ties.delete(this.item())) this.ties.add(this.item());
  }

  toggleArtefact() {
    this.#remember();
    if (!this.artefacts.delete(this.item())) this.artefacts.add(this.item());
  }

  choose(answer) {
    this.#remember();
    this.answer = answer;
  }

  /** Take the last action back; false when there is none. */
  undo() {
    const before = this.history.pop();
    if (!before) return false;
    this.#restore(before);
    this.focus = before.focus ?? 0;
    return true;
  }

  /** As the server keeps it. */
  stored() {
    return { ...this.#state(), history: this.history };
  }

  #state() {
    return { order: [...this.order], ties: [...this.ties], artefacts: [...this.artefacts], answer: this.answer };
  }

  #remember() {
    this.history.push({ ...this.#state(), focus: this.focus });
    if (this.history.length > MAX_HISTORY) this.history.shift();
  }

  #restore({ order, ties, artefacts, answer }) {
    this.order = [...order];
    this.ties = new Set(ties);
    this.artefacts = new Set(artefacts);
    this.answer = answer ?? null;
  }
}
