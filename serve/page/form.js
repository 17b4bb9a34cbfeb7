/** A form that makes jobs: checks, sends, shows errors beside their fields, waits when there is no room. */

import { ApiError, sleep } from "./api.js";
import { announce, duration, say } from "./dom.js";

const DEFAULT_RETRY_S = 5;

/**
 * A view's form. Its controls carry the names of the spec's fields, and each has an element
 * ID-error.
 *
 * task: the job's task. read(): the spec as the form says it, or a promise of it. onJob(job): gets
 * what was made.
 */
export class JobForm {
  #sending = false;

  constructor(form, { api, task, read, onJob }) {
    Object.assign(this, { form, api, task, read, onJob });
    this.button = form.querySelector("[type=submit]");
    this.stop = form.querySelector(".stop");
    this.trouble = form.querySelector(".trouble");
    this.countdown = form.querySelector(".countdown");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      form.requestSubmit();
    });
    form.addEventListener("input", ({ target }) => this.#mark(target, null));
  }

  async submit() {
    if (this.#sending) return;
    this.#clear();
    if (!this.#check()) return;
    const giveUp = new AbortController();
    this.stop.onclick = () => giveUp.abort();
    this.#busy(true);
    try {
      this.onJob(await this.#create(await this.read(), giveUp.signal));
    } catch (error) {
      if (!giveUp.signal.aborted) this.#explain(error);
    } finally {
      this.#busy(false);
      this.#wait(null);
    }
  }

  /** Sends the job, again and again as long as the service only says "not now". */
  async #create(spec, signal) {
    for (;;) {
      try {
        const body = { task: this.task, spec };
        return await this.api.json("/v1/jobs", { method: "POST", body, signal });
      } catch (error) {
        if (error.status !== 429 && error.status !== 503) throw error;
        await this.#countDown(error, signal);
      }
    }
  }

  async #countDown(error, signal) {
    const seconds = error.retryAfter ?? DEFAULT_RETRY_S;
    const until = Date.now() + 1000 * seconds;
    say(this.trouble, error.message);
    announce(`Trying again in ${duration(seconds)}`);
    for (let left = seconds; left > 0; left = (until - Date.now()) / 1000) {
      this.#wait(left);
      await sleep(Math.min(1000, 1000 * left), signal);
    }
    say(this.trouble, null);
    this.#wait(null);
  }

  /** A disabled button would lose the focus. */
  #busy(sending) {
    this.#sending = sending;
    this.button.setAttribute("aria-disabled", String(sending));
  }

  #wait(seconds) {
    const waiting = seconds !== null;
    if (!waiting && document.activeElement === this.stop) this.button.focus();
    say(this.countdown, waiting ? `Trying again in ${duration(seconds)}.` : null);
    this.stop.hidden = !waiting;
  }

  /** The browser's own checks, shown where the service's are. */
  #check() {
    const wrong = [...this.form.elements].filter((each) => each.name && !each.disabled && !each.validity.valid);
    for (const each of wrong) this.#mark(each, each.validity.patternMismatch ? each.title : each.validationMessage);
    this.#reveal(wrong[0]);
    return wrong.length === 0;
  }

  #explain(error) {
    if (!(error instanceof ApiError)) throw error;
    const control = error.status === 422 ? this.#blamed(error) : null;
    if (control) this.#mark(control, error.message);
    else say(this.trouble, error.message);
    this.#reveal(control);
  }

  /** The control of a field, which may be a path such as spec.seed.0, or else of a word in the message. */
  #blamed({ field, message }) {
    const words = `${field ?? ""} ${message}`.split(/[^A-Za-z_]+/);
    const controls = [...this.form.elements].filter((each) => each.name);
    return words.map((word) => controls.find((each) => each.name === word)).find(Boolean);
  }

  #mark(control, message) {
    const place = document.getElementById(`${control.id}-error`);
    if (!place) return;
    say(place, message);
    if (message) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  }

  #reveal(control) {
    if (!control) return;
    const folded = control.closest("details");
    if (folded) folded.open = true;
    control.focus();
  }

  #clear() {
    say(this.trouble, null);
    for (const each of this.form.elements) if (each.name) this.#mark(each, null);
  }
}
