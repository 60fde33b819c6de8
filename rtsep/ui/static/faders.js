/* Faders of the model's controls: one for each labelled value. */

const TOUCHED_MS = 500; // so long after a fader was moved, only the hand moves it

export class Faders {
  /** @param command called with each command for the server */
  constructor(card, command) {
    this.card = card;
    this.command = command;
    this.controls = [];
    this.wanted = new Set(); // controls that wait for the next picture
    const send = () => {
      requestAnimationFrame(send);
      for (const { name, values } of this.wanted) this.command({ type: "control", name, values });
      this.wanted.clear();
    };
    requestAnimationFrame(send);
  }

  /** Create the faders of a model. */
  show({ faders, controls }) {
    const rows = [];
    this.controls = faders.map(({ name, labels, low, high }) => {
      const control = { name, values: labels.map(() => low), sliders: [], touched: 0 };
      labels.forEach((label, index) => {
        const row = document.createElement("label");
        const slider = Object.assign(document.createElement("input"), {
          type: "range", min: low, max: high, step: (high - low) / 100,
        });
        slider.dataset.control = `${name} ${label}`;
        slider.oninput = () => {
          control.values[index] = Number(slider.value);
          control.touched = performance.now();
          this.wanted.add(control);
          this.write(control);
        };
        row.append(Object.assign(document.createElement("span"), { textContent: label }), slider);
        row.append(document.createElement("output"));
        control.sliders.push(slider);
        rows.push(row);
      });
      return control;
    });
    this.card.replaceChildren(...rows);
    this.card.hidden = rows.length === 0;
    this.follow(controls);
  }

  /** Show the server's values, which other pages may have changed. */
  follow({ values }) {
    clearTimeout(this.later);
    for (const control of this.controls) {
      if (!(control.name in values)) continue;
      if (performance.now() - control.touched < TOUCHED_MS) {
        this.later = setTimeout(() => this.follow({ values }), TOUCHED_MS);
        continue;
      }
      control.values = [...values[control.name]];
      control.sliders.forEach((slider, index) => (slider.value = control.values[index]));
      this.write(control);
    }
  }

  write({ sliders, values }) {
    sliders.forEach((slider, index) => (slider.nextElementSibling.textContent = values[index].toFixed(2)));
  }
}
