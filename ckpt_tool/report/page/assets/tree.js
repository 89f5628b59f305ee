// Names with dots as a tree of modules; a module that has one module alone is drawn as one with it.
const MAX_DEPTH = 40;

class Tree {
  constructor(names) {
    this.root = this.node("", null, -1);
    this.leaves = new Array(names.length);
    const modules = new Map([["", this.root]]);
    names.forEach((name, i) => {
      const cut = name.lastIndexOf(".");
      const home = cut > 0 ? this.module(modules, name.slice(0, cut)) : this.root;
      const leaf = this.node((cut > 0 ? name.slice(cut + 1) : name) || "\"\"", home, i);
      leaf.path = name;
      home.children.push(leaf);
      this.leaves[i] = leaf;
    });
    this.join(this.root);
    this.rows = [];
  }
  node(name, parent, leaf) {
    return { name, path: "", parent, leaf, children: leaf < 0 ? [] : null, open: false, depth: 0, row: -1,
      shown: 0, place: 0, inside: 0, total: 0, bytes: 0, elements: 0, counts: null };
  }
  module(modules, path) {
    let found = modules.get(path);
    if (found) return found;
    const missing = [];
    let at = path;
    while (!modules.has(at)) {
      missing.push(at);
      const cut = at.lastIndexOf(".");
      at = cut > 0 && missing.length < MAX_DEPTH ? at.slice(0, cut) : "";
    }
    found = modules.get(at);
    for (const each of missing.reverse()) {
      const made = this.node(found === this.root ? each : each.slice(found.path.length + 1), found, -1);
      made.path = each;
      found.children.push(made);
      modules.set(each, made);
      found = made;
    }
    return found;
  }
  join(root) {
    const todo = [root];
    while (todo.length) {
      const node = todo.pop();
      for (let i = 0; i < node.children.length; i++) {
        let child = node.children[i];
        while (child.leaf < 0 && child.children.length === 1 && child.children[0].leaf < 0) {
          const only = child.children[0];
          only.name = `${child.name}.${only.name}`;
          only.parent = node;
          node.children[i] = child = only;
        }
        child.depth = node.depth + (node === root ? 0 : 1);
        if (child.leaf < 0) todo.push(child);
      }
    }
  }
  // Every node's sums over its leaves: `weigh` gives [bytes, elements], `statusOf` a number for those that are shown.
  sum(weigh) {
    this.each((node) => { node.bytes = node.elements = node.total = 0; });
    this.leaves.forEach((leaf, i) => {
      const [bytes, elements] = weigh(i);
      for (let at = leaf; at; at = at.parent) { at.bytes += bytes; at.elements += elements; at.total++; }
    });
  }
  filter(statusOf) {
    const none = STATUSES.length;
    this.each((node) => { node.shown = 0; node.counts = null; });
    this.leaves.forEach((leaf, i) => {
      const status = statusOf(i);
      if (status < 0) return;
      for (let at = leaf; at; at = at.parent) {
        at.shown++;
        if (at.leaf < 0) (at.counts ||= new Array(none).fill(0))[status]++;
      }
    });
  }
  // Every node, parents before their children.
  each(run) {
    if (!this.nodes) {
      this.nodes = [this.root];
      for (let i = 0; i < this.nodes.length; i++) for (const child of this.nodes[i].children || []) this.nodes.push(child);
    }
    for (const node of this.nodes) run(node);
  }
  flatten() {
    for (const node of this.rows) node.row = -1;
    this.rows = [];
    const visit = (node) => {
      node.inside = 0;
      for (const child of node.children) {
        if (!child.shown) continue;
        child.place = ++node.inside;
        child.row = this.rows.push(child) - 1;
        if (child.leaf < 0 && child.open) visit(child);
      }
    };
    visit(this.root);
    return this.rows;
  }
  // The row that stands for a leaf: its own, or that of the module that is folded over it.
  rowOf(leaf) {
    for (let at = this.leaves[leaf]; at; at = at.parent) if (at.row >= 0) return at.row;
    return -1;
  }
  openTo(node) {
    for (let at = node.parent; at; at = at.parent) at.open = true;
  }
  openAll(open) {
    this.each((node) => { if (node.leaf < 0) node.open = open; });
  }
  // Unfolds level by level, as long as all of it can be looked over.
  openUpTo(rows) {
    let level = [this.root], shown = this.root.children.filter((child) => child.shown).length;
    for (;;) {
      const next = level.flatMap((node) => node.children.filter((child) => child.leaf < 0 && child.shown));
      const more = next.reduce((sum, node) => sum + node.children.filter((child) => child.shown).length, 0);
      if (!next.length || shown + more > rows) return;
      for (const node of next) node.open = true;
      shown += more;
      level = next;
    }
  }
}

// The block that a key is in: up to its first number, or up to its second where that gives layers of a usual count.
function layersOf(keys) {
  const upTo = (key, numbers) => {
    const parts = key.split(".");
    let seen = 0;
    for (let i = 0; i < parts.length - 1; i++) {
      if (/^[0-9]+$/.test(parts[i]) && ++seen === numbers) return parts.slice(0, i + 1).join(".");
    }
    return seen && numbers > 1 ? upTo(key, seen) : parts.length > 1 ? parts.slice(0, Math.min(2, parts.length - 1)).join(".") : key;
  };
  const first = keys.map((key) => upTo(key, 1));
  const few = new Set(first).size;
  if (few > 12) return first;
  const second = keys.map((key) => upTo(key, 2));
  const more = new Set(second).size;
  return more > few && more <= 80 ? second : first;
}
