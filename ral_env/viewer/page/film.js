// The frames of a canvas, asked for some at a time and kept; large canvases have one every few codes.

import { ask } from "./ask.js";

const MOST_FRAMES = 320;
const FIRST_AT_ONCE = 8; // so that playing can begin; twice as many each time after
const MOST_AT_ONCE = 64;
const PIXELS_AT_ONCE = 2 ** 21;

export class Film {
  #frames = new Map(); // step -> [bitmap, which of its frames]

  constructor(source, codes, signal) {
    this.source = source;
    this.codes = codes;
    this.signal = signal;
    this.length = codes.length;
    this.every = Math.ceil(this.length / MOST_FRAMES);
    const size = source.image_size;
    this.atOnce = Math.max(1, Math.min(MOST_AT_ONCE, Math.floor(PIXELS_AT_ONCE / size ** 2)));
  }

  has(step) {
    return this.#frames.has(step);
  }

  // Loads the frames of these steps that are not there yet.
  async load(steps) {
    const missing = steps.filter((step) => !this.has(step));
    for (let count = FIRST_AT_ONCE; missing.length; count *= 2) {
      const part = missing.splice(0, Math.min(count, this.atOnce));
      const given = { source: this.source.source, codes: this.codes, steps: part };
      const bitmap = await createImageBitmap(await ask("frames", given, this.signal));
      part.forEach((step, index) => this.#frames.set(step, [bitmap, index]));
    }
  }

  // All frames that playing shows, from a step on and then those before it.
  async loadAll(from) {
    const steps = [];
    for (let step = 0; step <= this.length; step += this.every) steps.push(step);
    if (steps.at(-1) !== this.length) steps.push(this.length);
    const start = steps.findIndex((step) => step >= from);
    await this.load([...steps.slice(start), ...steps.slice(0, start)]);
  }

  // Draws the frame of a step, or the last one before it that is there; says which, -1 for none.
  draw(context, step) {
    let at = step;
    while (at >= 0 && !this.has(at)) at -= 1;
    if (at < 0) return -1;
    const [bitmap, index] = this.#frames.get(at);
    const size = this.source.image_size;
    context.drawImage(bitmap, 0, index * size, size, size, 0, 0, size, size);
    return at;
  }

  // The last step to which playing may go on from this one.
  ready(step) {
    let at = Math.floor(step / this.every) * this.every;
    while (at < this.length && this.has(Math.min(at + this.every, this.length))) at += this.every;
    return Math.min(Math.max(at, step), this.length);
  }

  close() {
    for (const [bitmap] of this.#frames.values()) bitmap.close();
    this.#frames.clear();
  }
}
