// Questions to the server. It holds nothing of this tab: each question brings all it depends on.

// The server's own words for an argument that it cannot take.
export class Refused extends Error {}

// Answers a question with what JSON it was answered with, or with a Blob.
export function ask(question, given, signal) {
  return post(`ask/${question}`, "application/json", JSON.stringify(given), signal);
}

// The same with a picture, a Blob, of whatever kind it is.
export function askAbout(picture, question, given, signal) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(given)) query.set(name, JSON.stringify(value));
  return post(`ask/${question}?${query}`, "application/octet-stream", picture, signal);
}

let open = 0; // questions that are not answered yet

async function post(address, kind, body, signal) {
  document.body.dataset.busy = open += 1;
  try {
    return await answered(
      await fetch(address, { method: "POST", headers: { "Content-Type": kind }, body, signal }),
    );
  } finally {
    open -= 1;
    if (!open) delete document.body.dataset.busy;
  }
}

async function answered(response) {
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  if (response.ok) return isJson ? response.json() : response.blob();
  if (isJson) throw new Refused((await response.json()).error);
  throw new Error(`the server failed (${response.status}); its window says why`);
}

// Runs a task that a newer one of the same kind replaces: the older is aborted.
// Faults are shown; `before` waits so many milliseconds, in which a newer task may come.
export class Latest {
  #control = new AbortController();

  async run(task, before = 0) {
    this.stop();
    const control = (this.#control = new AbortController());
    try {
      if (before) await new Promise((wake) => setTimeout(wake, before));
      if (control.signal.aborted) return undefined;
      const found = await task(control.signal);
      if (!control.signal.aborted) clearFault();
      return found;
    } catch (error) {
      if (!control.signal.aborted) showFault(error);
      return undefined;
    }
  }

  stop() {
    this.#control.abort();
  }
}

export function showFault(error) {
  document.getElementById("wrong").textContent =
    error instanceof TypeError ? "The server does not answer: is `ral view` still running?" : error.message;
  if (!(error instanceof Refused)) console.error(error);
}

export function clearFault() {
  document.getElementById("wrong").textContent = "";
}

export function say(words) {
  document.getElementById("said").textContent = words;
}
