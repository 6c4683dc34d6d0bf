// A figure over training: a line, its ends in words, a mark where the slider is.

import { make } from "./elements.js";

const [WIDTH, HEIGHT, EDGE] = [320, 90, 4];

export function curve(name, x, y, at) {
  const known = x.map((each, i) => [each, y[i]]).filter(([, value]) => value !== null && value !== undefined);
  const [left, right] = [known[0][0], known.at(-1)[0]];
  const values = known.map(([, value]) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const across = (value) => EDGE + ((value - left) / (right - left || 1)) * (WIDTH - 2 * EDGE);
  const down = (value) => HEIGHT - EDGE - ((value - low) / (high - low || 1)) * (HEIGHT - 2 * EDGE);
  const marked = Math.min(Math.max(at, left), right);
  const nearest = known.reduce((a, b) => (Math.abs(b[0] - marked) < Math.abs(a[0] - marked) ? b : a));
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", class: "curve" });
  const words = `${name}: ${short(nearest[1])} after ${nearest[0]}; from ${short(low)} to ${short(high)} in all`;
  svg.append(
    Object.assign(draw("title", {}), { textContent: words }),
    draw("line", { x1: across(marked), x2: across(marked), y1: 0, y2: HEIGHT, class: "mark" }),
    draw("polyline", { points: known.map(([a, b]) => `${across(a).toFixed(1)},${down(b).toFixed(1)}`).join(" ") }),
    draw("circle", { cx: across(nearest[0]), cy: down(nearest[1]), r: 4 }),
  );
  const range = `${short(low)} to ${short(high)}`;
  return make(
    "figure", {},
    make("figcaption", {}, make("span", { class: "title" }, `${name} ${short(nearest[1])}`), make("span", { class: "figures" }, range)),
    svg,
  );
}

function draw(name, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function short(value) {
  return Math.abs(value) >= 1000 ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}
