/** The list of jobs, newest first, of every task. */

import { ApiError } from "./api.js";
import { announce, plural, say } from "./dom.js";
import { JobCard } from "./job-card.js";

const PAGE = 10;

export class Gallery {
  #cards = [];
  #next = null;
  // a card that comes near the screen loads its images
  #near = new IntersectionObserver((entries) => this.#arrived(entries), { rootMargin: "600px" });

  /** page: {api, views by task, viewer, load()}. */
  constructor(root, page) {
    this.page = page;
    this.list = root.querySelector(".list");
    this.empty = root.querySelector(".empty");
    this.trouble = root.querySelector(".trouble");
    this.retry = root.querySelector(".retry");
    this.more = root.querySelector(".older");
    this.retry.addEventListener("click", () => page.load());
    this.more.addEventListener("click", () => this.older());
  }

  /** Shows the newest jobs, of the key that is used now. */
  async load() {
    this.#clear();
    await this.older();
  }

  /** Shows nothing any more, such as when the key was forgotten. */
  leave(message) {
    this.#clear();
    this.#stop(message, "Enter API key");
  }

  #clear() {
    for (const card of this.#cards) card.close();
    this.#cards = [];
    this.#next = null;
    this.list.replaceChildren();
  }

  async older() {
    const cursor = this.#next === null ? "" : `&before=${encodeURIComponent(this.#next)}`;
    say(this.trouble, null);
    this.retry.hidden = this.more.hidden = true;
    try {
      const { jobs, next } = await this.page.api.json(`/v1/jobs?limit=${PAGE}${cursor}`);
      const known = new Set(this.#cards.map((card) => card.job.id));
      for (const job of jobs) if (!known.has(job.id)) this.list.append(this.#card(job).root);
      this.#next = next ?? null;
      this.more.hidden = this.#next === null;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.#stop(error.message, error.status === 401 ? "Enter API key" : "Try again");
    }
    this.empty.hidden = this.#cards.length > 0 || !this.retry.hidden;
  }

  #stop(message, remedy) {
    say(this.trouble, message);
    this.retry.textContent = remedy;
    this.retry.hidden = false;
    this.empty.hidden = this.more.hidden = true;
  }

  /** Puts a new job on top and brings it into view. */
  add(job) {
    announce(`${plural(job.num_items, "image")} ordered`);
    if (!this.retry.hidden) return this.page.load(); // what hid the earlier jobs is mended
    this.empty.hidden = true;
    const known = this.#cards.find((card) => card.job.id === job.id);
    const { root } = known ?? this.#card(job);
    this.list.prepend(root);
    root.scrollIntoView({ block: "nearest" });
  }

  #card(job) {
    const card = new JobCard(job, this.page);
    this.#cards.push(card);
    this.#near.observe(card.root);
    return card;
  }

  #arrived(entries) {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      this.#near.unobserve(target);
      this.#cards.find((card) => card.root === target)?.start();
    }
  }
}
