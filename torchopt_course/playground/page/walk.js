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

// Which of the optimizer's readings of its coefficients holds for given options, step and first; and what it says.
function coefficientsFor(optimizer, given, before = null) {
  for (const read of before ? [before, ...optimizer.coefficients] : optimizer.coefficients) {
    const coefficients = read(given);
    if (coefficients !== null) return {read, coefficients};
  }
  return {read: null, coefficients: null};
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
  const far = AWAY * (landscape.view[1] - landscape.view[0]);
  const given = {...optimizer.rest, ...options, step: 0, first: true}, kept = keptStates(optimizer, given);
  const fresh = (value) => Object.fromEntries(kept.map((s) => [s.name, s.start === "p" ? value : s.start]));
  const heightAt = (x, y) => landscape.height(x, y, ...parameters) - landscape.lowest;
  let [x, y] = start, ofX = fresh(x), ofY = fresh(y), read = null, rule = null;
  const path = {x: [x], y: [y], heights: [heightAt(x, y)], slopes: [], states: [], stopped: refusal(optimizer, options)};
  for (let step = 1; step <= steps && !path.stopped; step++) {
    given.step = step;
    given.first = step === 1;
    const found = coefficientsFor(optimizer, given, read), coefficients = found.coefficients;
    // One reading gives the same truth values and nulls each time: by these the rule was chosen.
    if (found.read !== read) rule = coefficients && ruleFor(optimizer, kept, coefficients);
    read = found.read;
    if (!rule) {
      path.stopped = `its coefficients have no value in step ${step}, or take a way that this page does not know`;
      break;
    }
    const slope = landscape.slope(x, y, ...parameters);
    if (noise > 0) {
      const drawn = normals(seed, step);
      slope[0] += noise * drawn[0];
      slope[1] += noise * drawn[1];
    }
    [x, ofX] = rule(x, slope[0], ofX, coefficients);
    [y, ofY] = rule(y, slope[1], ofY, coefficients);
    const height = heightAt(x, y);
    if (!(Math.abs(x) < far && Math.abs(y) < far && Number.isFinite(height))) {
      path.stopped = `diverged in step ${step}`;
      break;
    }
    path.x.push(x);
    path.y.push(y);
    path.heights.push(height);
    path.slopes.push(slope);
    path.states.push([ofX, ofY]);
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
