/** The newest that is known of each run, by its name. */
export class RunList {
  #runs = new Map();

  /** The run of this name, or undefined. The object is another one after every change. */
  get(name) {
    return this.#runs.get(name);
  }

  names() {
    return [...this.#runs.keys()];
  }

  /** An event of the websocket: these come in order. */
  tell(run) {
    this.#runs.set(run.name, run);
  }

  /** An answer over HTTP, which an event may have overtaken: `changed` is when the state changed last. */
  answer(run) {
    const known = this.#runs.get(run.name);
    if (!known || run.changed >= known.changed) this.#runs.set(run.name, run);
  }

  /** The whole list over HTTP. What was known when it was asked for (`before`) and is not in it is gone. */
  replace(list, before) {
    const names = new Set(list.map((run) => run.name));
    for (const name of before) if (!names.has(name)) this.#runs.delete(name);
    for (const run of list) this.answer(run);
  }
}
