// The optimizers' cards: what walks, with which options.

const COLORS = ["#c2410c", "#1d4ed8", "#15803d", "#86198f"];
let identity = 0;

// make("p", {class: "note"}, "text"): an element with attributes and children.
function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean") made.toggleAttribute(key, value);
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// A slider with its name and value. `change(value)` is called while it moves.
function sliderRow({name, slider, value, describe = written, change}) {
  const id = `control${identity++}`;
  const output = make("output", {for: id, "aria-live": "off"}, describe(value)); // the slider itself says it
  const input = make("input", {
    id, type: "range", min: 0, max: 1000, step: 1, value: Math.round(1000 * placeOf(slider, value)),
    "aria-valuetext": describe(value),
    oninput: () => change(valueAt(slider, input.value / 1000)),
  });
  const row = make("div", {class: "row"}, make("label", {for: id}, name), output, input);
  row.show = (now) => {
    output.textContent = describe(now);
    input.setAttribute("aria-valuetext", describe(now));
    if (Math.abs(valueAt(slider, input.value / 1000) - now) > 1e-9 * Math.abs(now)) {
      input.value = Math.round(1000 * placeOf(slider, now));
    }
  };
  return row;
}

function firstOptions(optimizer) {
  return Object.fromEntries([...optimizer.sliders.map(({key, value}) => [key, value]), ...Object.entries(optimizer.switches)]);
}

// A card of a walker {optimizer, options}; `on` says what to do: change(), best(walker), remove(walker) ...
function card(walker, index, walkers, on) {
  const {optimizer, options} = walker, color = COLORS[index];
  const choice = make("select", {
    "aria-label": `Optimizer ${index + 1}`,
    onchange: () => on.choose(walker, OPTIMIZERS[choice.selectedIndex]),
  }, ...OPTIMIZERS.map((each) => make("option", {selected: each === optimizer}, each.name)));
  const rows = {}, body = make("div", {class: "options"});
  const more = make("div"), rest = make("details", {class: "more"}, make("summary", {}, "more options"), more);
  for (const slider of optimizer.sliders) {
    const row = sliderRow({
      name: label(slider.key), slider, value: options[slider.key],
      change: (value) => {
        options[slider.key] = value;
        on.change();
      },
    });
    rows[slider.key] = row;
    if (slider.key === "lr") {
      walker.strip = make("canvas", {class: "strip", width: 480, height: 22, "aria-hidden": "true"});
      row.append(walker.strip);
      row.append(make("button", {type: "button", class: "best", onclick: () => on.best(walker),
        "aria-label": `Best learning rate for ${optimizer.name}`}, "best"));
    }
    (["eps", "weight_decay", "dampening", "lr_decay"].includes(slider.key) ? more : body).append(row);
  }
  for (const name of Object.keys(optimizer.switches)) {
    const box = make("input", {type: "checkbox", checked: options[name], onchange: () => {
      options[name] = box.checked;
      on.change();
    }});
    body.append(make("label", {class: "switch"}, box, ` ${label(name)}`));
  }
  if (more.childElementCount) body.append(rest);
  const result = make("p", {class: "result"});
  const made = make("section", {class: "card", style: `--color: ${color}`, "aria-label": `Walker ${index + 1}: ${optimizer.name}`},
    make("div", {class: "head"}, make("span", {class: "swatch", "aria-hidden": "true"}), choice,
      make("button", {type: "button", class: "remove", hidden: walkers.length < 2, onclick: () => on.remove(walker),
        "aria-label": `Remove ${optimizer.name}`}, "×")),
    make("p", {class: "about"}, optimizer.summary), body, result);
  made.show = (text) => {
    for (const [key, row] of Object.entries(rows)) row.show(options[key]);
    if (result.textContent !== text) result.textContent = text;
  };
  return made;
}

// How good each learning rate would be, as a strip behind its slider: the darker, the lower the end.
function drawStrip(canvas, found, color) {
  const context = canvas.getContext("2d"), {width, height} = canvas;
  const finite = found.map(({quality}) => quality).filter(Number.isFinite);
  const best = Math.min(...finite), worst = Math.max(...finite);
  context.clearRect(0, 0, width, height);
  context.fillStyle = color;
  context.beginPath();
  context.moveTo(0, height);
  found.forEach(({quality}, i) => {
    const good = Number.isFinite(quality) ? (worst - quality) / (worst - best || 1) : 0;
    context.lineTo((width * i) / (found.length - 1), height - 1 - (height - 3) * good);
  });
  context.lineTo(width, height);
  context.globalAlpha = 0.28;
  context.fill();
}
