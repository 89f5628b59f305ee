// A tree of which only the rows in sight are in the document; moved in by keys as ARIA's tree pattern has it.
const ROW = 28;
let lists = 0;

class TreeList {
  constructor(tree, label, options) {
    this.tree = tree;
    this.options = options; // fillRow(row, node), onChoose(node), onFold(), onScroll()
    this.id = `tree${lists++}`;
    this.cursor = 0;
    this.rows = el("div", { class: "rows", role: "presentation" });
    this.element = el("div", { class: "list", role: "tree", tabindex: 0, "aria-label": label, id: this.id }, this.rows);
    this.element.addEventListener("scroll", () => this.later());
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.element.addEventListener("click", (event) => this.click(event));
    this.element.addEventListener("pointerover", (event) => this.point(event));
    this.element.addEventListener("pointerleave", () => options.onPoint && options.onPoint(null));
    this.drawn = new Map();
  }
  get height() { return this.tree.rows.length * ROW; }
  get range() {
    const top = this.element.scrollTop, height = this.element.clientHeight || 600;
    return [Math.max(0, Math.floor(top / ROW) - 4), Math.min(this.tree.rows.length, Math.ceil((top + height) / ROW) + 4)];
  }
  later() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => { this.waiting = false; this.draw(); this.options.onScroll && this.options.onScroll(this); });
  }
  refresh() {
    this.clear();
    this.draw();
  }
  clear() {
    this.cursor = Math.max(0, Math.min(this.cursor, this.tree.rows.length - 1));
    this.rows.style.height = `${this.height}px`;
    this.rows.replaceChildren();
  }
  draw([from, to] = this.range) {
    const made = [];
    for (let i = from; i < to; i++) made.push(this.row(this.tree.rows[i], i));
    if (!made.length) made.push(el("p", { class: "empty", role: "none" }, "nothing matches"));
    this.rows.replaceChildren(...made);
    if (this.tree.rows.length) this.element.setAttribute("aria-activedescendant", `${this.id}-${this.cursor}`);
    else this.element.removeAttribute("aria-activedescendant");
  }
  row(node, i) {
    const isModule = node.leaf < 0;
    const row = el("div", {
      class: `row ${isModule ? "module" : "leaf"}${i === this.cursor ? " cursor" : ""}${this.options.isHot && this.options.isHot(node) ? " hot" : ""}`,
      role: "treeitem", id: `${this.id}-${i}`, "aria-level": node.depth + 1, "aria-setsize": node.parent.inside, "aria-posinset": node.place,
      "aria-expanded": isModule ? String(node.open) : null, "aria-selected": String(this.selected === node),
    });
    row.style.top = `${i * ROW}px`;
    row.style.paddingLeft = `${8 + Math.min(node.depth, 12) * 15}px`;
    row.append(el("span", { class: "arrow", "aria-hidden": "true" }, isModule ? "▶" : ""));
    this.options.fillRow(row, node);
    return row;
  }
  at(event) {
    // By its height: rows may be drawn anew between a press and its click.
    const top = this.rows.getBoundingClientRect().top;
    return this.tree.rows[Math.floor((event.clientY - top) / ROW)] || null;
  }
  click(event) {
    const node = this.at(event);
    if (!node) return;
    this.cursor = node.row;
    if (node.leaf < 0) this.fold(node, !node.open);
    this.choose(node);
  }
  point(event) {
    const node = this.at(event);
    if (node && this.options.onPoint) this.options.onPoint(node);
  }
  fold(node, open) {
    node.open = open;
    this.options.onFold(this);
  }
  choose(node) {
    this.selected = node;
    this.options.onChoose(node, this);
    this.draw();
  }
  move(to) {
    this.cursor = Math.max(0, Math.min(this.tree.rows.length - 1, to));
    this.show(this.cursor);
    this.draw();
  }
  show(row) {
    const top = row * ROW, box = this.element;
    if (top < box.scrollTop) box.scrollTop = top;
    else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
  }
  key(event) {
    const node = this.tree.rows[this.cursor];
    if (!node || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.tree.rows.length, End: this.tree.rows.length };
    if (event.key in moves) this.move(this.cursor + moves[event.key]);
    else if (event.key === "ArrowRight" && node.leaf < 0) node.open ? this.move(this.cursor + 1) : this.fold(node, true);
    else if (event.key === "ArrowLeft") node.leaf < 0 && node.open ? this.fold(node, false) : node.parent.row >= 0 && this.move(node.parent.row);
    else if (event.key === "Enter" || event.key === " ") {
      if (node.leaf < 0 && event.key === " ") this.fold(node, !node.open);
      this.choose(node);
    } else return;
    event.preventDefault();
  }
}
