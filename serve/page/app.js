/**
 * The page's entry. Reading order: text-to-cxr.js (what a view is), large-images.js,
 * anomaly-maps.js, data-sets.js, form.js, models.js, files.js, tabs.js, gallery.js, job-card.js,
 * tile.js, viewer.js, slide.js, overlay.js, api.js, dom.js.
 *
 * A further view is a module with a class like TextToCXR (task, noun, unit, load, fill, describe),
 * its form and its tab in index.html, and a line in `views`: the gallery shows the jobs of every
 * task.
 */

import { AnomalyMaps } from "./anomaly-maps.js";
import { Api, ApiError } from "./api.js";
import { DataSets } from "./data-sets.js";
import { Gallery } from "./gallery.js";
import { LargeImages } from "./large-images.js";
import { Tabs } from "./tabs.js";
import { TextToCXR } from "./text-to-cxr.js";
import { Viewer } from "./viewer.js";

const keyDialog = document.getElementById("key-dialog");
const forget = document.getElementById("forget-key");

/** Asks for an API key; resolves to null if the reader gives none. */
function askKey(refused) {
  const input = keyDialog.querySelector("input");
  keyDialog.querySelector(".why").textContent = refused
    ? "The service did not accept this key. Is it whole, and still valid?"
    : "This service asks for a key.";
  keyDialog.returnValue = "";
  keyDialog.showModal();
  input.focus();
  return new Promise((resolve) => {
    const closed = () => {
      const key = keyDialog.returnValue === "use" ? input.value.trim() : null;
      input.value = "";
      forget.hidden = !key;
      resolve(key);
    };
    keyDialog.addEventListener("close", closed, { once: true });
  });
}

/** A view works without what it could not load; the gallery says what is wrong. */
function ignoreRefusal(error) {
  if (!(error instanceof ApiError)) throw error;
}

const api = new Api(askKey);
const tabs = new Tabs(document.getElementById("tasks"));
const added = (job) => gallery.add(job);
const views = [TextToCXR, LargeImages, AnomalyMaps, DataSets].map((View) => new View(api, added, tabs));
const gallery = new Gallery(document.getElementById("jobs"), {
  api,
  views: new Map(views.map((view) => [view.task, view])),
  viewer: new Viewer(document.getElementById("viewer")),
  load,
});

async function load() {
  await Promise.all([gallery.load(), ...views.map((view) => view.load().catch(ignoreRefusal))]);
}

forget.hidden = api.key === null;
forget.addEventListener("click", () => {
  api.forgetKey();
  forget.hidden = true;
  gallery.leave("The key is forgotten.");
});
load();
