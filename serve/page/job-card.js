/** One job as a card, with a tile for every image from the queue to the finished picture. */

import { ApiError } from "./api.js";
import { announce, duration, el, moment, plural, say } from "./dom.js";
import { OVER, Tile } from "./tile.js";

const TILES = 24; // shown at first; a job may have a thousand images
const MAX_ITEMS = 100; // the service gives at most so many at once
const REFRESH_MS = 500;
const REPORT_MS = 10000; // a report is of all items
const WORDS = {
  queued: "Queued",
  running: "Running",
  succeeded: "Finished",
  failed: "Failed",
  cancelled: "Cancelled",
};

/** One job. `items` holds what is known of each image, by its index. */
export class JobCard {
  items = [];
  error = null;
  #tiles = [];
  #closed = new AbortController();
  #refreshing = null;
  #drawing = false;
  #reported = 0;

  constructor(job, page) {
    this.job = job;
    this.page = page;
    this.view = page.views.get(job.task);
    this.#build();
    this.#show(Math.min(TILES, job.num_items));
    this.draw();
  }

  get over() {
    return OVER.has(this.job.status);
  }

  /** Loads the images; follows the job while it runs. */
  async start() {
    const { signal } = this.#closed;
    const running = !this.over;
    const watcher = { onEvent: (event) => this.#on(event), look: () => this.#look(), signal };
    try {
      if (running) await this.page.api.follow(this.job.id, watcher);
      await this.refresh();
      if (running) announce(`${this.#word()}: ${this.#count()}`);
    } catch (error) {
      if (!signal.aborted) this.#explain(error);
    }
  }

  close() {
    this.#closed.abort();
  }

  /** Reads the job and its shown items anew. */
  async refresh() {
    const { api } = this.page;
    const { signal } = this.#closed;
    const path = `/v1/jobs/${encodeURIComponent(this.job.id)}`;
    const job = await api.json(path, { signal });
    for (let start = 0; start < this.#tiles.length; start += MAX_ITEMS) {
      const limit = Math.min(MAX_ITEMS, this.#tiles.length - start);
      const { items } = await api.json(`${path}/items?start=${start}&limit=${limit}`, { signal });
      for (const item of items) this.#merge(item);
    }
    if (!this.over || OVER.has(job.status)) Object.assign(this.job, job);
    await this.#tellAccepted(signal);
    this.#complain(null);
  }

  /** What gates let pass so far, of a job that has a report. */
  async #tellAccepted(signal) {
    const { report } = this.job.links ?? {};
    if (!report || !(this.over || Date.now() > this.#reported + REPORT_MS)) return;
    this.#reported = Date.now();
    this.accepted.textContent = this.view.accepted(await this.page.api.json(report, { signal }));
  }

  /** Whether the job is over, by a fresh look at it. */
  async #look() {
    try {
      await this.refresh();
    } catch (error) {
      if (error.passing) this.#complain(`${error.message} Trying again.`);
      throw error;
    }
    return this.over;
  }

  #on({ kind, data }) {
    this.error = null;
    if (kind === "started") this.#merge({ index: data.index, status: "running" });
    else if (kind === "step") this.#merge({ index: data.index, status: "running", steps_done: data.step, num_steps: data.num_steps });
    else if (kind === "preview") this.#merge({ index: data.index, preview: data.image });
    else if (kind === "item") this.#arrive(data);
    if (kind !== "queued" && !this.over) this.job.status = "running";
    if (kind === "finished") Object.assign(this.job, data);
    this.#drawSoon();
  }

  #arrive(data) {
    this.#merge(data);
    const done = this.items.filter((item) => OVER.has(item?.status)).length;
    if (this.#tiles.length === this.job.num_items) announce(`${done} of ${plural(this.job.num_items, "image")} done`);
    this.#refreshSoon(); // events carry no record
  }

  /** What is over stays over: an answer may be older than the events that overtook it. */
  #merge(item) {
    const known = this.items[item.index] ?? {};
    if (item.record && this.view?.own) item = { ...item, record: this.view.own(item.record) };
    if (OVER.has(known.status) && !OVER.has(item.status)) return;
    this.items[item.index] = { ...known, ...item };
    this.#tiles[item.index]?.draw(this.items[item.index]);
  }

  #refreshSoon() {
    this.#refreshing ??= setTimeout(() => {
      this.#refreshing = null;
      // what fails here is tried again by whoever follows the job
      if (!this.#closed.signal.aborted) this.refresh().catch(() => {});
    }, REFRESH_MS);
  }

  #drawSoon() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.draw();
    });
  }

  async #cancel() {
    this.cancelButton.disabled = true;
    try {
      const path = `/v1/jobs/${encodeURIComponent(this.job.id)}`;
      Object.assign(this.job, await this.page.api.json(path, { method: "DELETE" }));
      await this.refresh();
    } catch (error) {
      this.#explain(error);
    }
    this.cancelButton.disabled = false;
  }

  #explain(error) {
    if (!(error instanceof ApiError)) throw error;
    this.#complain(error.status === 404 ? "This job has expired and its images are gone." : error.message);
  }

  #complain(message) {
    this.error = message;
    this.draw();
  }

  #build() {
    const { title, facts } = this.view?.describe(this.job.spec) ?? { title: this.job.task, facts: [] };
    const id = `job-${this.job.id}`;
    this.status = el("span", { class: "status" });
    this.counts = el("span", {});
    this.cancelButton = el("button", { type: "button", class: "cancel", onclick: () => this.#cancel() }, "Cancel");
    this.bar = el("progress", { class: "whole", "aria-label": "Progress of the job" });
    this.message = el("p", { class: "trouble", hidden: true });
    this.tiles = el("div", { class: "tiles" });
    this.moreButton = el("button", { type: "button", class: "more-tiles", onclick: () => this.#more() });
    const reuse = el("button", { type: "button", class: "reuse", onclick: () => this.view.fill(this.job.spec) }, "Use settings");
    reuse.hidden = !this.view;
    const { report, samples, errors } = this.job.links ?? {};
    this.accepted = el("span", {});
    const outputs = el(
      "p",
      { class: "outputs", hidden: !report },
      el("a", { href: report ?? null, target: "_blank", rel: "noopener" }, "Report"),
      el("a", { href: samples ?? null, download: `${this.job.id}.tar` }, "Download (WebDataset)"),
      el("a", { href: errors ?? null, download: `${this.job.id}-errors.jsonl` }, "Failed rows"),
      this.accepted,
    );
    const when = el("time", { datetime: this.job.created_at }, moment(this.job.created_at));
    const kept = el("span", {}, `kept until ${moment(this.job.expires_at)}`);
    this.root = el(
      "article",
      { class: "job panel", "aria-labelledby": id, "data-job": this.job.id, "data-task": this.job.task },
      el(
        "header",
        {},
        el("div", {}, el("h3", { id, title }, title), el("p", { class: "meta" }, this.status, this.counts, when, ...facts.map((fact) => el("span", {}, fact)), kept)),
        el("div", { class: "actions" }, reuse, this.cancelButton),
      ),
      this.bar,
      outputs,
      this.message,
      this.tiles,
      this.moreButton,
    );
  }

  #more() {
    this.#show(Math.min(this.#tiles.length + TILES, this.job.num_items));
    this.refresh().catch((error) => this.#explain(error));
  }

  #show(count) {
    while (this.#tiles.length < count) {
      const tile = new Tile(this.#tiles.length, this);
      this.#tiles.push(tile);
      this.tiles.append(tile.root);
      tile.draw(this.items[tile.index] ?? { status: this.over ? null : "queued" });
    }
    const rest = this.job.num_items - count;
    say(this.moreButton, rest > 0 ? `Show ${Math.min(rest, TILES)} more of ${rest}` : null);
  }

  #word() {
    const { status, num_succeeded } = this.job;
    return status === "failed" && num_succeeded > 0 ? "Partly failed" : (WORDS[status] ?? status);
  }

  /** "3 of 4 images in 12 s, 1 failed" */
  #count() {
    const { num_items, num_succeeded, num_failed, started_at, finished_at } = this.job;
    const images = plural(num_items, "image");
    const spent = (Date.parse(finished_at) - Date.parse(started_at)) / 1000;
    return [
      num_succeeded === num_items ? images : `${num_succeeded} of ${images}`,
      started_at && finished_at ? ` in ${duration(spent)}` : "",
      num_failed ? `, ${num_failed} failed` : "",
    ].join("");
  }

  draw() {
    const { job } = this;
    this.root.dataset.status = job.status;
    this.status.textContent = this.#word();
    this.counts.textContent = this.#count();
    this.cancelButton.hidden = this.bar.hidden = this.over;
    this.bar.value = this.#share();
    say(this.message, this.error ?? job.message);
  }

  /** How much of the job is done, from 0 to 1: by steps if all items are shown, by items if not. */
  #share() {
    const { num_items, num_succeeded, num_failed } = this.job;
    if (this.#tiles.length < num_items) return (num_succeeded + num_failed) / num_items;
    const shares = this.items.map((item) => (OVER.has(item.status) ? 1 : (item.steps_done ?? 0) / (item.num_steps || 1)));
    return shares.reduce((sum, each) => sum + each, 0) / num_items;
  }
}
