/* One strip for the mixture and one per source: spectrogram, meter, gain, mute and solo. */

import { SECONDS, Spectrogram, marks } from "/static/spectrogram.js";

const HUES = ["#8b8ca3", "#ea7a2b", "#8f7bf0", "#1fa88f", "#d9467a", "#4a90e2"];
const RELEASE = 0.94; // of a meter, per picture
const TOUCHED_MS = 500; // so long after a slider was moved, only the hand moves it

export const gainText = (db) => (db <= -60 ? "−∞\u00a0dB" : `${db < 0 ? "−" : ""}${Math.abs(db).toFixed(1)}\u00a0dB`);

export class Strips {
  /**
   * @param command called with each command for the server
   * @param loudest called with the largest gain of the audible sources
   */
  constructor(place, template, command, loudest) {
    this.place = place;
    this.template = template;
    this.command = command;
    this.loudest = loudest;
    this.strips = [];
    this.columns = [];
    this.bypass = false;
    this.wanted = new Map(); // gains that wait for the next picture
    this.calm = matchMedia("(prefers-reduced-motion: reduce)");
    this.drawn = 0;
    requestAnimationFrame((now) => this.draw(now));
  }

  /** Create the strips of a model's sources. */
  show({ sources, controls, bands, columns_hz, top_hz }) {
    this.columns = [];
    this.bands = bands;
    this.longest = SECONDS * columns_hz;
    this.strips = ["mixture", ...sources].map((name, index) => {
      const article = this.template.content.firstElementChild.cloneNode(true);
      const part = (selector) => article.querySelector(selector);
      article.style.setProperty("--hue", HUES[index % HUES.length]);
      article.dataset.source = name;
      article.classList.toggle("mixture", index === 0);
      part(".name").textContent = name;
      part("canvas").setAttribute("aria-label", `Spectrogram of ${name}`);
      part(".gain span").textContent = `Gain of ${name}`;
      for (const { text, at } of marks(top_hz)) {
        const mark = document.createElement("span");
        mark.textContent = text;
        mark.style.bottom = `${100 * at}%`;
        part(".marks").append(mark);
      }
      const strip = { name, article, part, level: 0, muted: false, solo: false, gain: 0, touched: 0 };
      for (const kind of ["mute", "solo"]) {
        part(`.${kind}`).setAttribute("aria-label", `${kind} ${name}`);
        if (index) part(`.${kind}`).title = `${kind === "solo" ? "Shift + " : ""}${index}`;
        part(`.${kind}`).onclick = () => this.toggle(index, kind);
      }
      const slider = part("input");
      slider.oninput = () => this.setGain(index, Number(slider.value));
      slider.ondblclick = () => this.setGain(index, 0);
      return strip;
    });
    this.place.replaceChildren(...this.strips.map(({ article }) => article));
    this.strips.forEach((strip) => {
      strip.spectrogram = new Spectrogram(strip.part("canvas"), bands, columns_hz);
    });
    this.follow(controls);
  }

  /** Show the server's controls, which other pages may have changed. */
  follow({ gains_db, muted, soloed, bypass }) {
    this.strips.slice(1).forEach((strip, i) => {
      strip.muted = muted[i];
      strip.solo = soloed[i];
      if (performance.now() - strip.touched < TOUCHED_MS) return;
      strip.gain = gains_db[i];
      strip.part("input").value = gains_db[i];
    });
    this.bypass = bypass;
    this.refresh();
  }

  setGain(index, db) {
    const strip = this.strips[index];
    strip.gain = db;
    strip.touched = performance.now();
    strip.part("input").value = db;
    this.wanted.set(strip.name, db);
    this.refresh();
  }

  toggle(index, kind) {
    const strip = this.strips[index];
    if (!strip || index === 0) return;
    const key = kind === "mute" ? "muted" : "solo";
    strip[key] = !strip[key];
    this.command({ type: kind, source: strip.name, on: strip[key] });
    this.refresh();
  }

  setBypass(on) {
    this.bypass = on;
    this.command({ type: "bypass", on });
    this.refresh();
  }

  refresh() {
    const alone = this.strips.some(({ solo }) => solo);
    let loudest = this.bypass ? 1 : 0;
    this.strips.forEach((strip, index) => {
      const heard = index === 0 ? this.bypass : !this.bypass && !strip.muted && (!alone || strip.solo);
      strip.article.classList.toggle("unheard", index > 0 && !heard);
      if (heard && index && strip.gain > -60) loudest = Math.max(loudest, 10 ** (strip.gain / 20));
      strip.part(".mute").setAttribute("aria-pressed", strip.muted);
      strip.part(".solo").setAttribute("aria-pressed", strip.solo);
      strip.part(".gain output").textContent = gainText(strip.gain);
      strip.part("input").setAttribute("aria-valuetext", gainText(strip.gain));
    });
    this.loudest(loudest);
  }

  /** Store columns from the server; they are drawn with the next picture. */
  take(message) {
    const view = new DataView(message);
    const [count, signals, bands] = [view.getUint8(8), view.getUint8(9), view.getUint16(10, true)];
    if (signals !== this.strips.length || bands !== this.bands) return; // of the model before
    const peaks = new Uint8Array(message, 12, signals);
    this.strips.forEach((strip, i) => (strip.level = Math.max(strip.level, peaks[i] / 255)));
    this.columns.push({ count, levels: new Uint8Array(message, 12 + signals) });
    while (this.columns.length > this.longest) this.columns.shift(); // the page was hidden
  }

  draw(now) {
    requestAnimationFrame((next) => this.draw(next));
    for (const [source, db] of this.wanted) this.command({ type: "gain", source, db });
    this.wanted.clear();
    if (this.calm.matches && now - this.drawn < 1000) return;
    this.drawn = now;
    const { bands, strips } = this;
    for (const { count, levels } of this.columns.splice(0)) {
      strips.forEach((strip, i) => {
        strip.spectrogram.append(count, (column, band) => levels[(column * strips.length + i) * bands + band]);
      });
    }
    for (const strip of strips) {
      strip.article.style.setProperty("--level", strip.level.toFixed(3));
      strip.level *= RELEASE;
    }
  }
}
