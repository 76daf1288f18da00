import { actions, share, words } from "../lib/job_text.js";

const LABELS = { pause: "Pause", resume: "Resume", stop: "Stop" };

/** A run on its node. `ask(action)` is called for a pressed button; it rejects with what went wrong. */
export class JobView {
  constructor(ask) {
    this.ask = ask;
    this.fill = part("div", "tandem-job-fill");
    this.bar = part("div", "tandem-job-bar", this.fill);
    this.bar.setAttribute("role", "progressbar");
    this.state = part("strong", "tandem-job-state");
    this.rest = part("span", "tandem-job-rest");
    this.text = part("div", "tandem-job-text", this.state, this.rest);
    this.error = part("div", "tandem-job-error");
    this.error.setAttribute("role", "alert");
    this.buttons = Object.fromEntries(Object.keys(LABELS).map((action) => [action, this.#button(action)]));
    this.row = part("div", "tandem-job-buttons", ...Object.values(this.buttons));
    this.content = part("div", "tandem-job-content", this.bar, this.text, this.error, this.row);
    this.element = part("div", "tandem-job", this.content);
    this.#complain("");
  }

  show(run) {
    // What was wrong then says nothing of the state that came after it.
    if (this.element.dataset.state !== run.state) this.#complain("");
    this.element.dataset.state = run.state;
    const { state, rest } = words(run);
    this.state.textContent = state;
    this.rest.textContent = rest;
    const percent = Math.round(share(run) * 1000) / 10;
    this.fill.style.width = `${percent}%`;
    this.bar.setAttribute("aria-valuenow", String(percent));
    const offered = actions(run);
    for (const [action, button] of Object.entries(this.buttons)) button.hidden = !offered.includes(action);
    this.row.hidden = offered.length === 0;
  }

  /** Whether the wheel has something to scroll in here. */
  scrolls() {
    return [this.text, this.error].some((part) => part.scrollHeight > part.clientHeight);
  }

  #button(action) {
    const button = part("button", "tandem-job-button");
    button.type = "button";
    button.textContent = LABELS[action];
    button.addEventListener("click", () => this.#press(action));
    return button;
  }

  async #press(action) {
    this.#disable(true);
    try {
      await this.ask(action);
      this.#complain("");
    } catch (error) {
      this.#complain(error.message);
    } finally {
      this.#disable(false);
    }
  }

  #complain(text) {
    this.error.textContent = text;
    this.error.hidden = text === "";
  }

  #disable(disabled) {
    for (const button of Object.values(this.buttons)) button.disabled = disabled;
  }
}

function part(tag, name, ...children) {
  const element = document.createElement(tag);
  element.className = name;
  element.append(...children);
  return element;
}
