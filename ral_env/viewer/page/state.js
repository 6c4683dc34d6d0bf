// What the page shows is in its address, behind the #: a link holds all of it, and no server sees it.

const DEFAULTS = {
  tab: "watch", source: "RALFaces32-v0", seed: 0, temperature: 1,
  step: -1, speed: 30, overlay: "none", cell: -1, level: 0, beside: "", // watch; -1 is the end, or none
  rows: -1, count: 4, policy: "", picture: "", real: 0, // complete
  at: "", round: 0, left: "", right: "", // compare
  given: -1, picked: "", // play
};

export const state = read();

export function read() {
  const found = { ...DEFAULTS };
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (!(name in DEFAULTS)) continue;
    const isNumber = typeof DEFAULTS[name] === "number";
    if (!isNumber) found[name] = text;
    else if (text.trim() !== "" && Number.isFinite(Number(text))) found[name] = Number(text);
  }
  return found;
}

// Takes over what the address says now.
export function reread() {
  clearTimeout(writing);
  writing = null;
  Object.assign(state, read());
}

// Changes the state, and soon the address with it: browsers take few such changes a second.
export function set(changes) {
  Object.assign(state, changes);
  writing ??= setTimeout(write, 400);
}

let writing = null;

function write() {
  clearTimeout(writing);
  writing = null;
  if (location.hash !== address()) history.replaceState(null, "", address());
}

addEventListener("pagehide", () => writing && write());

// The address of the state with some changes.
export function address(changes = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...state, ...changes })) {
    if (value !== DEFAULTS[name] || name === "source") query.set(name, value);
  }
  return `#${query}`;
}

// A state in which nothing is left of the last source but what fits any.
export function withSource(source) {
  const { tab, seed, temperature, speed, overlay } = state;
  return { ...DEFAULTS, tab, seed, temperature, speed, overlay, source };
}
