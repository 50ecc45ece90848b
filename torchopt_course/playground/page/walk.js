// One optimizer's way through one landscape.

const AWAY = 1e6; // farther out than this many widths of the picture a walk is over

function keptStates(optimizer, options) {
  return optimizer.states.filter((state) => state.option === null || options[state.option]);
}

// What the constructor says against these options, in Python; "" if nothing.
function refusal(optimizer, options) {
  const names = [...optimizer.sliders.map((slider) => slider.key), ...Object.keys(optimizer.switches)];
  return optimizer.refused[JSON.stringify(names.map((name) => Boolean(options[name])))] || "";
}

function coefficientsAt(optimizer, options, step) {
  const given = {...optimizer.rest, ...options, step, first: step === 1};
  for (const read of optimizer.coefficients) {
    const found = read(given);
    if (found !== null) return found;
  }
  return null;
}

function ruleFor(optimizer, kept, coefficients) {
  const chosen = {};
  for (const [name, value] of Object.entries(coefficients)) {
    if (value === null || typeof value === "boolean") chosen[name] = value;
  }
  return optimizer.rules[JSON.stringify([kept.map((state) => state.name), chosen])];
}

// Steps from a start; ends early, with the reason, where there is no next one.
// Of each step: x, y, the height above the lowest point, the slope that was seen, the states.
function walk({optimizer, options, landscape, parameters = [], start, steps, noise = 0, seed = 1}) {
  const [left, right] = landscape.view;
  const all = {...optimizer.rest, ...options};
  const kept = keptStates(optimizer, all);
  const path = {x: [start[0]], y: [start[1]], heights: [], slopes: [], states: [], stopped: ""};
  path.heights.push(landscape.height(...start, ...parameters) - landscape.lowest);
  path.stopped = refusal(optimizer, options);
  const fresh = (value) => Object.fromEntries(kept.map((s) => [s.name, s.start === "p" ? value : s.start]));
  let p = [...start], states = start.map(fresh);
  for (let step = 1; step <= steps && !path.stopped; step++) {
    const coefficients = coefficientsAt(optimizer, options, step);
    const rule = coefficients && ruleFor(optimizer, kept, coefficients);
    if (!rule) {
      path.stopped = `its coefficients have no value in step ${step}, or take a way that this page does not know`;
      break;
    }
    const slope = landscape.slope(...p, ...parameters);
    if (noise > 0) normals(seed, step).forEach((z, i) => (slope[i] += noise * z));
    const results = p.map((value, i) => rule(value, slope[i], states[i], coefficients));
    p = results.map((result) => result[0]);
    states = results.map((result) => result[1]);
    const height = landscape.height(...p, ...parameters) - landscape.lowest;
    if (!p.every((value) => Math.abs(value) < AWAY * (right - left)) || !Number.isFinite(height)) {
      path.stopped = `diverged in step ${step}`;
      break;
    }
    path.x.push(p[0]);
    path.y.push(p[1]);
    path.heights.push(height);
    path.slopes.push(slope);
    path.states.push(states);
  }
  return path;
}

// How well a walk went: the logarithm of the largest height in its last quarter, so that to fly past the minimum
// does not count; less than a millionth of the height at the start makes no difference. Infinite if it stopped.
function quality(path) {
  if (path.stopped) return Infinity;
  const last = path.heights.slice(Math.floor(path.heights.length * 0.75));
  return Math.log(Math.max(...last, 1e-6 * path.heights[0], 1e-300));
}

// The same walk with each of many learning rates.
function qualities(request, slider, count = 48) {
  return Array.from({length: count}, (_, i) => {
    const rate = valueAt(slider, i / (count - 1));
    return {rate, quality: quality(walk({...request, options: {...request.options, [slider.key]: rate}}))};
  });
}

// Which state is a velocity, and which way it points: the one that goes with, or against, the steps.
function velocityOf(path, optimizer) {
  const names = optimizer.states.map((state) => state.name);
  let best = null;
  for (const name of names) {
    if (!path.states.length || path.states[0][0][name] === undefined) continue;
    let together = 0, steps = 0, sizes = 0;
    path.states.forEach((states, k) => {
      const moved = [path.x[k + 1] - path.x[k], path.y[k + 1] - path.y[k]];
      moved.forEach((d, i) => {
        together += d * states[i][name];
        steps += d * d;
        sizes += states[i][name] ** 2;
      });
    });
    const agreement = together / Math.sqrt(steps * sizes || 1);
    const signed = path.states.some((states) => states.some((state) => state[name] < 0));
    if (signed && (best === null || Math.abs(agreement) > Math.abs(best.agreement))) best = {name, agreement};
  }
  return best && {name: best.name, sign: Math.sign(best.agreement) || -1};
}
