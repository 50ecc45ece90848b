// Paths, arrows and the handle of the start, as SVG over the ground.

const SVG = "http://www.w3.org/2000/svg";
const ARROW = 74; // length of the longest arrow of a path, in pixels
const MOST_DOTS = 400;

function element(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function points(path, frame, from, to) {
  const limit = 40 * frame.width; // what lies farther out is not drawn, but its direction is right
  const near = (value) => Math.min(Math.max(value, -limit), limit).toFixed(2);
  let text = "";
  for (let k = from; k <= to; k++) text += `${near(frame.fromX(path.x[k]))},${near(frame.fromY(path.y[k]))} `;
  return text;
}

function drawPath(path, color, frame, now) {
  const last = path.x.length - 1, here = Math.min(now, last);
  const walked = points(path, frame, 0, here);
  const group = element("g", {class: "path", style: `--color: ${color}`});
  group.append(
    element("polyline", {class: "ahead", points: points(path, frame, here, last)}),
    element("polyline", {class: "halo", points: walked}),
    element("polyline", {class: "walked", points: walked}),
  );
  for (let k = 1; k <= Math.min(here, MOST_DOTS); k++) {
    group.append(element("circle", {class: "dot", cx: frame.fromX(path.x[k]), cy: frame.fromY(path.y[k]), r: 2.2}));
  }
  return group;
}

function drawWalker(path, color, frame, now) {
  const k = Math.min(now, path.x.length - 1);
  return element("circle", {class: "walker", style: `--color: ${color}`, cx: frame.fromX(path.x[k]), cy: frame.fromY(path.y[k]), r: 7});
}

// From the place at a step: downhill, and where the velocity points. Lengths are square roots, measured by the
// largest of the path, or the last arrows could not be seen.
function drawArrows(path, velocity, color, frame, now) {
  const k = Math.min(now, path.slopes.length - 1);
  const group = element("g", {class: "arrows", style: `--color: ${color}`});
  if (k < 0) return group;
  const longest = (of) => Math.max(...path.slopes.map((_, i) => Math.hypot(...of(i)))) || 1;
  const add = (kind, of) => {
    const now = of(k), size = Math.hypot(...now) || 1;
    const [dx, dy] = now.map((value) => (ARROW * Math.sqrt(size / longest(of)) * value) / size);
    const x = frame.fromX(path.x[k]), y = frame.fromY(path.y[k]), length = Math.hypot(dx, dy);
    if (!(length > 3)) return;
    const [ex, ey] = [x + dx, y - dy], [ux, uy] = [dx / length, -dy / length];
    const tip = `${ex},${ey} ${ex - 9 * ux + 4 * uy},${ey - 9 * uy - 4 * ux} ${ex - 9 * ux - 4 * uy},${ey - 9 * uy + 4 * ux}`;
    group.append(
      element("line", {class: `${kind} halo`, x1: x, y1: y, x2: ex, y2: ey}),
      element("line", {class: kind, x1: x, y1: y, x2: ex - 6 * ux, y2: ey - 6 * uy}),
      element("polygon", {class: kind, points: tip}),
    );
  };
  add("slope", (i) => path.slopes[i].map((value) => -value));
  if (velocity) {
    // After step k the state is that of k: what has carried the walker here.
    const state = (i) => path.states[Math.max(i - 1, 0)].map((states) => velocity.sign * states[velocity.name]);
    if (now > 0) add("velocity", state);
  }
  return group;
}

function drawMinima(landscape, frame) {
  return landscape.minima.map(([x, y]) =>
    element("path", {
      class: "minimum",
      transform: `translate(${frame.fromX(x)} ${frame.fromY(y)})`,
      d: "M-6 0H6M0-6V6",
    }),
  );
}
