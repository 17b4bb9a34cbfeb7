/** A slide to move about in, tile by tile, by OpenSeadragon (page/vendor, BSD-3-Clause). */

import { ApiError } from "./api.js";
import { el } from "./dom.js";
import { beside } from "./tile.js";

const LIBRARY = "/page/vendor/openseadragon.min.js";
const SECONDS = 0.4;
let loading = null;

export class Slide {
  #viewer = null;
  #wanted = null;

  /** root: an empty element that the slide fills while it is open. */
  constructor(root) {
    this.root = root;
  }

  /** Shows a result by its signed link. Throws ApiError if it cannot be had. */
  async open(image, about) {
    this.close();
    this.#wanted = image.url;
    this.root.hidden = false;
    const [OpenSeadragon, slide] = await Promise.all([library(), describe(image.url)]);
    if (this.#wanted !== image.url) return; // another one was asked for meanwhile
    const canvas = el("div", { class: "canvas", role: "img", "aria-label": `${about}, to move about in` });
    this.root.replaceChildren(canvas, this.#controls(slide));
    this.#viewer = new OpenSeadragon.Viewer({
      element: canvas,
      tileSources: source(slide, image.url),
      // its own buttons are pictures from elsewhere, and words in them could not be read
      showNavigationControl: false,
      drawer: "canvas",
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : SECONDS,
      visibilityRatio: 0.5,
      maxZoomPixelRatio: 4,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    });
    this.#viewer.addHandler("zoom", () => this.#tellScale(slide));
    this.#viewer.addHandler("open", () => this.#tellScale(slide));
    this.#viewer.addHandler("tile-load-failed", () => (this.scale.textContent = "A part cannot be loaded."));
  }

  close() {
    this.#wanted = null;
    this.#viewer?.destroy();
    this.#viewer = null;
    this.root.hidden = true;
    this.root.replaceChildren();
  }

  #controls(slide) {
    const button = (name, sign, act) => el("button", { type: "button", "aria-label": name, title: name, onclick: act }, sign);
    const zoom = (factor) => () => this.#viewer.viewport.zoomBy(factor).applyConstraints();
    const full = () => this.#viewer.viewport.zoomTo(this.#viewer.viewport.imageToViewportZoom(1)).applyConstraints();
    this.scale = el("span", { class: "scale" });
    return el(
      "div",
      { class: "controls", role: "group", "aria-label": "Magnification" },
      button("Larger", "+", zoom(1.5)),
      button("Smaller", "\u2212", zoom(1 / 1.5)),
      button("Whole image", "fit", () => this.#viewer.viewport.goHome()),
      button("One pixel a pixel", "1:1", full),
      el("span", {}, `${slide.width} \u00d7 ${slide.height}`),
      this.scale,
    );
  }

  #tellScale({ microns_per_pixel: microns }) {
    const zoom = this.#viewer.viewport.viewportToImageZoom(this.#viewer.viewport.getZoom());
    const parts = [`${Math.round(100 * zoom)} %`];
    if (microns) parts.push(`${(microns / zoom).toPrecision(2)} \u00b5m a pixel`);
    this.scale.textContent = parts.join(", ");
  }
}

/** The library when it is first needed; it is no module, so it goes by way of the document. */
function library() {
  loading ??= new Promise((resolve, reject) => {
    // it looks for a style element of its own, and would add one, which the page's policy forbids
    const found = document.createElementNS("urn:medphantom", "style");
    found.setAttribute("data-openseadragon-mobile-css", "true");
    document.head.append(found);
    const failed = () => {
      loading = null;
      reject(new ApiError(0, "The viewer of slides cannot be loaded."));
    };
    document.head.append(el("script", { src: LIBRARY, onload: () => resolve(globalThis.OpenSeadragon), onerror: failed }));
  });
  return loading;
}

async function describe(url) {
  const response = await fetch(beside(url, "/tiles")).catch(() => null);
  if (!response?.ok) throw new ApiError(response?.status ?? 0, "The slide cannot be had; open it again.");
  return response.json();
}

/** OpenSeadragon counts levels from the smallest; ours from the largest. */
function source({ width, height, tile, levels }, url) {
  const last = levels.length - 1;
  return {
    width,
    height,
    tileSize: tile,
    minLevel: 0,
    maxLevel: last,
    getTileUrl: (level, x, y) => beside(url, `/tiles/${last - level}/${x}/${y}`),
  };
}
