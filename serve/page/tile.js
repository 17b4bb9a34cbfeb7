/** One image of a job, from the queue to the finished picture. */

import { el, say } from "./dom.js";

export const OVER = new Set(["succeeded", "failed", "cancelled"]);

export class Tile {
  #renewed = false;

  constructor(index, card) {
    this.index = index;
    this.card = card;
    this.picture = el("img", { alt: "", loading: "lazy", hidden: true, onerror: () => this.#renew() });
    const open = () => card.page.viewer.open(card, index);
    this.button = el("button", { type: "button", class: "picture", disabled: true, onclick: open }, this.picture);
    this.reason = el("p", { class: "reason", hidden: true });
    this.bar = el("progress", { "aria-label": `Progress of image ${index + 1}` });
    this.caption = el("figcaption", {});
    this.root = el("figure", { class: "tile" }, el("div", { class: "frame" }, this.button, this.reason), this.bar, this.caption);
  }

  draw(item) {
    const { status, steps_done: done, num_steps: steps } = item;
    this.root.dataset.status = status;
    const forming = status === "running" || status === "succeeded"; // the picture itself may lag behind
    this.#picture(item.image ? pictureUrl(item.image) : forming && item.preview, item);
    this.button.disabled = !item.image;
    say(this.reason, status === "failed" ? (item.error ?? "failed") : status === "cancelled" ? "cancelled" : null);
    this.bar.hidden = status !== "running";
    this.bar.value = steps ? done / steps : 0;
    this.caption.textContent = caption(item, done, steps, this.card.view);
  }

  #picture(source, item) {
    this.picture.hidden = !source;
    if (!source) return;
    this.picture.alt = item.image
      ? aboutItem(this.card.view, item, ` ${this.index + 1}`)
      : `Preview of image ${this.index + 1}`;
    if (this.picture.getAttribute("src") !== source) this.picture.src = source;
  }

  /** A signed link ends some day; a new one comes with the item. */
  #renew() {
    if (this.#renewed) return;
    this.#renewed = true;
    this.card.refresh().catch(() => {});
  }
}

function caption(item, done, steps, view) {
  if (item.status === "running") return steps ? `${view?.unit ?? "step"} ${done ?? 0} of ${steps}` : "starting";
  if (item.status === "succeeded") return (item.record && view?.caption?.(item.record)) ?? `seed ${item.seed}`;
  return { queued: "in the queue", failed: "failed", cancelled: "" }[item.status] ?? "";
}

/** An item in words: what a view calls its own, or a synthetic image of a sentence. */
export function aboutItem(view, { record }, number = "") {
  if (view?.label) return `${view.label}${number}`;
  return `Synthetic ${view?.noun ?? "image"}${number}${record?.prompt ? `: ${record.prompt}` : ""}`;
}

/** Whether a result has several files, which lie beside it. */
export function isBundle(image) {
  return image.media_type === "application/zip";
}

/** A place below a signed link's path, under its signature. */
export function beside(url, path) {
  return url.replace("?", `${path}?`);
}

export function isSlide(image) {
  return image.media_type === "image/tiff";
}

/** A link a browser can show; DICOM it cannot, and of a slide or several files a small picture is enough. */
export function pictureUrl(image) {
  if (isSlide(image) || isBundle(image)) return `${image.url}&format=preview`;
  return image.media_type.startsWith("image/") ? image.url : `${image.url}&format=png`;
}
