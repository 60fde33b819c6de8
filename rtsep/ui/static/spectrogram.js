/* Scrolling spectrograms: one pixel per column and band, stretched by the style sheet. */

const SECONDS = 8;

// Colour map from black over violet and orange to pale yellow, with even steps of lightness.
const STOPS = [
  [0.0, 6, 6, 14], [0.15, 25, 16, 62], [0.3, 74, 18, 104], [0.45, 125, 32, 108],
  [0.6, 181, 51, 90], [0.74, 230, 86, 58], [0.87, 251, 155, 52], [1.0, 252, 244, 178],
];

const PALETTE = new Uint32Array(256);
for (let level = 0; level < 256; level++) {
  const share = level / 255;
  const above = STOPS.findIndex(([at]) => at >= share);
  const [a, b] = [STOPS[Math.max(0, above - 1)], STOPS[above]];
  const part = a === b ? 0 : (share - a[0]) / (b[0] - a[0]);
  const [r, g, blue] = [1, 2, 3].map((i) => Math.round(a[i] + part * (b[i] - a[i])));
  PALETTE[level] = (255 << 24) | (blue << 16) | (g << 8) | r;
}

export class Spectrogram {
  constructor(canvas, bands, columnsHz) {
    this.canvas = canvas;
    this.bands = bands;
    canvas.width = Math.round(SECONDS * columnsHz);
    canvas.height = bands;
    this.context = canvas.getContext("2d", { alpha: false });
    this.context.fillStyle = "rgb(6, 6, 14)";
    this.context.fillRect(0, 0, canvas.width, canvas.height);
  }

  /** Append columns; `level(column, band)` is 0 to 255. */
  append(count, level) {
    const { canvas, context, bands } = this;
    const shown = Math.min(count, canvas.width);
    const image = context.createImageData(shown, bands);
    const pixels = new Uint32Array(image.data.buffer);
    for (let column = 0; column < shown; column++) {
      for (let band = 0; band < bands; band++) {
        pixels[(bands - 1 - band) * shown + column] = PALETTE[level(count - shown + column, band)];
      }
    }
    context.drawImage(canvas, -shown, 0);
    context.putImageData(image, canvas.width - shown, 0);
  }
}

/** Position of a frequency, from 0 at the bottom to 1 at the top; see rtsep/ui/spectra.py. */
export function marks(topHz) {
  const mel = (hz) => 2595 * Math.log10(1 + hz / 700);
  const [low, high] = [mel(60), mel(topHz)];
  return [250, 1000, 4000, 12000]
    .filter((hz) => hz < 0.8 * topHz)
    .map((hz) => ({ text: hz < 1000 ? `${hz} Hz` : `${hz / 1000} kHz`, at: (mel(hz) - low) / (high - low) }));
}

export { SECONDS };
