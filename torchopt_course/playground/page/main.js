// The page: one state, drawn anew whenever anything changes.

const get = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)");
const named = (list, name) => list.find((each) => each.name === name);

const state = {
  landscape: LANDSCAPES[0], parameters: [], start: [], steps: 150, now: 25, noise: 0, seed: 1, arrows: true,
  walkers: WALKING.map((name) => newWalker(named(OPTIMIZERS, name))),
};
let cards = [], paths = [], groundDrawn = "", codeShown = "", frame = null, drawing = false, playing = 0, saying = 0;

function newWalker(optimizer) {
  return {optimizer, options: firstOptions(optimizer)};
}

function request(walker) {
  const {landscape, parameters, start, steps, noise, seed} = state;
  return {optimizer: walker.optimizer, options: walker.options, landscape, parameters, start, steps, noise, seed};
}

// -- what may happen ------------------------------------------------------------------------------------

function enter(landscape) {
  Object.assign(state, {landscape, parameters: landscape.parameters.map(({value}) => value), start: [...landscape.start], noise: 0});
  state.walkers.forEach(useBest);
  buildControls();
  changed();
}

function useBest(walker) {
  const slider = walker.optimizer.sliders.find(({key}) => key === "lr");
  if (!slider) return;
  const found = qualities(request(walker), slider);
  const best = found.reduce((a, b) => (b.quality < a.quality ? b : a));
  if (Number.isFinite(best.quality)) walker.options.lr = best.rate;
}

const on = {
  change: () => changed(),
  best(walker) {
    useBest(walker);
    changed();
  },
  choose(walker, optimizer) {
    const at = state.walkers.indexOf(walker);
    state.walkers[at] = newWalker(optimizer);
    useBest(state.walkers[at]);
    buildCards();
    changed();
    cards[at].querySelector("select").focus();
  },
  remove(walker) {
    state.walkers = state.walkers.filter((each) => each !== walker);
    buildCards();
    changed();
    get("add").focus();
  },
};

function addWalker() {
  const there = state.walkers.map(({optimizer}) => optimizer);
  const walker = newWalker(OPTIMIZERS.find((each) => !there.includes(each)) ?? OPTIMIZERS[0]);
  state.walkers.push(walker);
  useBest(walker);
  buildCards();
  changed();
  cards.at(-1).querySelector("select").focus();
}

function moveStart(x, y) {
  const inside = (value, low, high) => Math.min(Math.max(value, low), high);
  state.start = [
    inside(x, frame.toX(0), frame.toX(frame.width)),
    inside(y, frame.toY(frame.height), frame.toY(0)),
  ].map((value) => Number(value.toPrecision(4)));
  changed();
}

function play() {
  if (playing) return stop();
  if (state.now >= state.steps) state.now = 0;
  const began = performance.now(), from = state.now, perSecond = Math.max(20, state.steps / 8);
  get("play").textContent = "Pause";
  const tick = (time) => {
    // With reduced motion: a few still pictures instead of a film.
    const pace = still.matches ? Math.floor((time - began) / 1000) * perSecond : ((time - began) / 1000) * perSecond;
    state.now = Math.min(from + Math.max(0, Math.floor(pace)), state.steps);
    draw();
    if (state.now < state.steps) playing = requestAnimationFrame(tick);
    else stop();
  };
  playing = requestAnimationFrame(tick);
}

function stop() {
  cancelAnimationFrame(playing);
  playing = 0;
  get("play").textContent = "Play";
}

// -- controls -------------------------------------------------------------------------------------------

function buildControls() {
  const rows = state.landscape.parameters.map((parameter, i) =>
    sliderRow({
      name: {condition: "condition number", turn: "turned by"}[parameter.name] ?? label(parameter.name),
      slider: {...parameter, scale: parameter.low > 0 ? "log" : "linear"}, value: state.parameters[i],
      describe: (value) => written(value) + (parameter.name === "turn" ? "°" : ""),
      change: (value) => {
        state.parameters[i] = value;
        changed();
      },
    }),
  );
  const slope = Math.hypot(...state.landscape.slope(...state.landscape.start, ...state.parameters));
  const noise = sliderRow({
    name: "gradient noise σ", slider: {scale: "log or 0", low: slope / 300, high: 3 * slope}, value: state.noise,
    change: (value) => {
      state.noise = value;
      changed();
    },
  });
  const steps = sliderRow({
    name: "steps", slider: {scale: "whole", low: 10, high: 500}, value: state.steps,
    change: (value) => {
      state.steps = value;
      state.now = Math.min(state.now, value);
      changed();
    },
  });
  get("controls").replaceChildren(...rows, noise, steps);
  get("lesson").textContent = state.landscape.lesson;
  for (const input of document.querySelectorAll("#landscapes input")) input.checked = input.value === state.landscape.name;
}

function buildCards() {
  cards = state.walkers.map((walker, i) => card(walker, i, state.walkers, on));
  get("cards").replaceChildren(...cards);
  get("add").hidden = state.walkers.length >= COLORS.length;
}

function buildLandscapes() {
  get("landscapes").append(...LANDSCAPES.map((landscape) => {
    const picture = make("canvas", {"aria-hidden": "true"});
    const input = make("input", {type: "radio", name: "landscape", value: landscape.name, onchange: () => enter(landscape)});
    drawGround(picture, landscape, landscape.parameters.map(({value}) => value), frameOf(landscape, 72, 46), 2);
    return make("label", {class: "landscape"}, input, picture, make("span", {}, landscape.name));
  }));
}

// -- drawing --------------------------------------------------------------------------------------------

function changed() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    compute();
    draw();
  });
}

function compute() {
  paths = state.walkers.map((walker) => walk(request(walker)));
  state.walkers.forEach((walker, i) => {
    const slider = walker.optimizer.sliders.find(({key}) => key === "lr");
    if (slider) drawStrip(walker.strip, qualities(request(walker), slider), COLORS[i]);
    cards[i].show(resultOf(walker, paths[i]));
  });
  get("again").disabled = state.noise === 0;
  if (get("show-code").open) showCode();
  remember();
  clearTimeout(saying);
  saying = setTimeout(() => (get("summary").textContent = summary()), 700);
}

function draw() {
  const map = get("map"), box = map.getBoundingClientRect();
  frame = frameOf(state.landscape, box.width, box.height);
  const key = JSON.stringify([state.landscape.name, state.parameters, box.width, box.height]);
  if (key !== groundDrawn) {
    drawGround(get("ground"), state.landscape, state.parameters, frame, Math.min(devicePixelRatio || 1, 1.5));
    groundDrawn = key;
  }
  const svg = get("paths");
  svg.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);
  const walked = paths.map((path, i) => drawPath(path, COLORS[i], frame, state.now));
  const arrows = paths.map((path, i) =>
    drawArrows(path, velocityOf(path, state.walkers[i].optimizer), COLORS[i], frame, state.now));
  const walkers = paths.map((path, i) => drawWalker(path, COLORS[i], frame, state.now));
  get("drawn").replaceChildren(
    ...drawMinima(state.landscape, frame), ...walked, ...(state.arrows ? arrows : []), ...walkers);
  const [x, y] = state.start;
  get("start").setAttribute("transform", `translate(${frame.fromX(x)} ${frame.fromY(y)})`);
  const said = {valuenow: x, valuemin: frame.toX(0), valuemax: frame.toX(frame.width), valuetext: `x ${written(x)}, y ${written(y)}`};
  for (const [name, value] of Object.entries(said)) get("start").setAttribute(`aria-${name}`, value);
  drawChart(get("chart"), paths, COLORS, state.steps, state.now);
  const time = get("time");
  time.max = state.steps;
  time.value = state.now;
  time.setAttribute("aria-valuetext", `step ${state.now} of ${state.steps}`);
  get("step").textContent = `step ${state.now} of ${state.steps}`;
}

function resultOf(walker, path) {
  const refused = refusal(walker.optimizer, walker.options);
  if (refused) return `Python refuses these options: ${refused}`;
  if (path.stopped) return `${path.stopped[0].toUpperCase()}${path.stopped.slice(1)}.`;
  return `${written(path.heights.at(-1))} above the minimum after ${state.steps} steps`;
}

function summary() {
  const walked = state.walkers.map((walker, i) => `${walker.optimizer.name}: ${resultOf(walker, paths[i])}`);
  return `${state.landscape.name}, from x ${written(state.start[0])}, y ${written(state.start[1])}. ${walked.join(". ")}`;
}

// The functions that run for the second step, beside what they were read from. Drawn anew when they are others.
function showCode() {
  const texts = new Map();
  for (const {optimizer, options} of state.walkers) {
    const all = {...optimizer.rest, ...options};
    const {read, coefficients} = coefficientsFor(optimizer, {...all, step: 2, first: false});
    const rule = coefficients && ruleFor(optimizer, keptStates(optimizer, all), coefficients);
    if (rule) texts.set(optimizer, `const coefficients = ${read};\n\nconst rule = ${rule};`);
  }
  const key = [...texts.values()].join();
  if (key === codeShown) return;
  codeShown = key;
  const block = (title, text) =>
    make("figure", {}, make("figcaption", {}, title), make("pre", {tabindex: 0, "aria-label": title}, text));
  get("code").replaceChildren(...[...texts].map(([{name, source}, text]) =>
    make("div", {class: "code"}, block(`${name} in Python`, source), block(`${name} as it runs here`, text))));
}

buildLandscapes();
listen();
if (remembered()) {
  buildControls();
} else {
  enter(state.landscape);
}
buildCards();
compute();
draw();
