// Names with dots as a tree of modules; a module that has one module alone is drawn as one with it. With `isOfModules`
// the names are those of modules, and a module with others in it is one row, not a row and a child of the same name.
const MAX_DEPTH = 40;

class Node {
  constructor(tree, name, parent, leaf) {
    this.tree = tree;
    this.name = name;
    this.path = "";
    this.parent = parent;
    this.leaf = leaf;
    this.own = -1;
    this.at = 0;
    this.children = leaf < 0 ? [] : null;
    this.open = this.kept = false;
    this.row = -1;
    this.depth = this.place = this.inside = this.total = this.bytes = this.elements = 0;
  }
  // How many leaves of it are shown, and how many of each status.
  get shown() { return this.leaf < 0 ? this.tree.shownIn[this.at] : this.tree.isShown[this.at]; }
  get counts() {
    const from = this.at * STATUSES.length;
    return this.leaf < 0 ? this.tree.countsIn.subarray(from, from + STATUSES.length) : null;
  }
}

class Tree {
  constructor(names, isOfModules = false) {
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
    if (isOfModules) this.unite(modules);
    this.join(this.root);
    this.modules = [this.root]; // parents before their children
    for (let i = 0; i < this.modules.length; i++) for (const child of this.modules[i].children) if (child.leaf < 0) this.modules.push(child);
    this.number();
    this.rows = [];
  }
  // What a search counts lies in arrays of numbers: at 50,000 keys it has no time to visit as many objects.
  number() {
    const { modules, leaves } = this;
    modules.forEach((node, i) => { node.at = i; });
    leaves.forEach((leaf, i) => { if (leaf.leaf >= 0) leaf.at = i; });
    this.up = Int32Array.from(modules, (node) => (node.parent ? node.parent.at : 0));
    this.home = Int32Array.from(leaves, (leaf) => (leaf.leaf < 0 ? leaf.at : leaf.parent.at));
    this.shownIn = new Uint32Array(modules.length);
    this.countsIn = new Uint32Array(modules.length * STATUSES.length);
    this.isShown = new Uint8Array(leaves.length);
    this.moduleSeen = new Int32Array(modules.length);
    this.seen = new Int32Array(leaves.length); // for each leaf its row, or that of the module that is folded over it
  }
  // The first call of a module stands in the module's own row, before those of the modules in it.
  unite(modules) {
    this.leaves.forEach((leaf, i) => {
      const module = modules.get(leaf.path);
      if (!module || module === this.root || module.own >= 0) return;
      module.own = i;
      leaf.parent.children.splice(leaf.parent.children.indexOf(leaf), 1);
      this.leaves[i] = module;
    });
  }
  node(name, parent, leaf) {
    return new Node(this, name, parent, leaf);
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
        while (child.leaf < 0 && child.own < 0 && child.children.length === 1 && child.children[0].leaf < 0) {
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
    this.leaves.forEach((leaf, i) => {
      const [bytes, elements] = weigh(i);
      for (let at = leaf; at; at = at.parent) { at.bytes += bytes; at.elements += elements; at.total++; }
    });
  }
  filter(statusOf) {
    const { up, home, shownIn, countsIn, isShown } = this, statuses = STATUSES.length;
    shownIn.fill(0);
    countsIn.fill(0);
    for (let i = 0; i < isShown.length; i++) {
      const status = statusOf(i);
      isShown[i] = status < 0 ? 0 : 1;
      if (status < 0) continue;
      shownIn[home[i]]++;
      countsIn[home[i] * statuses + status]++;
    }
    for (let i = shownIn.length - 1; i > 0; i--) {
      if (!shownIn[i]) continue;
      shownIn[up[i]] += shownIn[i];
      for (let status = 0; status < statuses; status++) countsIn[up[i] * statuses + status] += countsIn[i * statuses + status];
    }
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
  findRows() {
    const { up, home, moduleSeen, seen } = this;
    moduleSeen.fill(-1);
    seen.fill(-1);
    for (const node of this.rows) (node.leaf < 0 ? moduleSeen : seen)[node.at] = node.row;
    for (let i = 1; i < moduleSeen.length; i++) if (moduleSeen[i] < 0) moduleSeen[i] = moduleSeen[up[i]];
    for (let i = 0; i < seen.length; i++) if (seen[i] < 0) seen[i] = moduleSeen[home[i]];
  }
  openTo(node) {
    for (let at = node.parent; at; at = at.parent) at.open = true;
  }
  openAll(open) {
    for (const node of this.modules) node.open = open;
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
