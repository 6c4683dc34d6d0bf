// Small makers of elements: a name, attributes, children.

export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== undefined && value !== null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function button(text, press, attributes = {}) {
  return make("button", { type: "button", onclick: press, ...attributes }, text);
}

// A button with a drawing for a face: the path of an SVG of 24 by 24, and words for those who hear it.
export function iconButton(path, words, press) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const drawn = document.createElementNS(space, "path");
  for (const [name, value] of [["viewBox", "0 0 24 24"], ["width", 20], ["height", 20], ["aria-hidden", true]]) {
    svg.setAttribute(name, value);
  }
  drawn.setAttribute("d", path);
  drawn.setAttribute("fill", "currentColor");
  svg.append(drawn);
  const element = button("", press, { class: "icon", "aria-label": words, title: words });
  element.append(svg);
  return element;
}

// A labelled slider whose value stands beside it; `show` words the value.
export function slider(text, { min, max, step = 1, value, show = String, change }) {
  const output = make("output", {}, show(value));
  const input = make("input", { type: "range", min, max, step });
  input.value = value;
  const worded = () => {
    output.textContent = show(Number(input.value));
    input.setAttribute("aria-valuetext", show(Number(input.value)));
  };
  input.addEventListener("input", () => {
    worded();
    change(Number(input.value));
  });
  worded();
  const element = make("label", { class: "slider" }, make("span", {}, text), input, output);
  element.set = (to) => {
    input.value = to;
    worded();
  };
  element.input = input;
  return element;
}

// A labelled choice among [value, words].
export function choice(text, options, value, change) {
  const select = make("select", { onchange: () => change(select.value) });
  for (const [name, words] of options) select.append(make("option", { value: name }, words));
  select.value = value;
  return make("label", { class: "choice" }, make("span", {}, text), select);
}

// The seed, with a button that takes the next one.
export function seedField(value, change) {
  const input = make("input", { type: "number", min: 0, max: 4294967295, step: 1, inputmode: "numeric" });
  input.value = value;
  const to = (seed) => {
    input.value = seed;
    change(seed);
  };
  input.addEventListener("change", () => {
    if (input.validity.valid && input.value !== "") change(Number(input.value));
    else to(0);
  });
  return make(
    "span", { class: "seed" },
    make("label", {}, make("span", {}, "Seed"), input),
    button("Another", () => to((Number(input.value) + 1) % 4294967296)),
  );
}

export function temperatureSlider(value, change) {
  const show = (t) => t.toFixed(2);
  return slider("Temperature", { min: 0, max: 2, step: 0.05, value, show, change });
}

export function percent(share) {
  if (share >= 0.0995) return `${Math.round(share * 100)}\u00a0%`;
  return share >= 0.00095 ? `${(share * 100).toFixed(1)}\u00a0%` : "<\u00a00.1\u00a0%";
}

export function signed(number) {
  const shown = Math.abs(number).toFixed(2);
  return `${number < 0 && Number(shown) ? "−" : "+"}${shown}`;
}

// Lets the browser save a Blob, or a data: URL, under a name.
export async function save(what, name) {
  const blob = typeof what === "string" ? blobOf(what) : what;
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// The Blob that a data: URL of base64 holds.
export function blobOf(url) {
  const [head, body] = url.split(",");
  const bytes = Uint8Array.from(atob(body), (character) => character.charCodeAt(0));
  return new Blob([bytes], { type: head.slice(5).split(";")[0] });
}

export function fileName(...parts) {
  return parts.join("-").replace(/[^\w.-]+/g, "_").replace(/^[_.]+/, "");
}
