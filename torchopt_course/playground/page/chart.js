// Height above the lowest point against the step, logarithmic.

const MARGIN = {left: 52, right: 10, top: 10, bottom: 26};
const FLOOR = 1e-12;

function drawChart(svg, paths, colors, steps, now) {
  const width = svg.clientWidth || 600, height = svg.clientHeight || 180;
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const seen = paths.flatMap((path) => path.heights).filter((value) => value > FLOOR);
  const top = Math.ceil(Math.log10(Math.min(Math.max(...seen, 1e-3), 1e9)));
  const bottom = Math.min(Math.floor(Math.log10(Math.max(Math.min(...seen, 1), FLOOR))), top - 1);
  const x = (step) => MARGIN.left + ((width - MARGIN.left - MARGIN.right) * step) / steps;
  const y = (value) => {
    const place = (top - Math.log10(Math.max(value, FLOOR))) / (top - bottom);
    return MARGIN.top + (height - MARGIN.top - MARGIN.bottom) * Math.min(Math.max(place, -0.05), 1.02);
  };
  const parts = [];
  const every = Math.ceil((top - bottom) / Math.max(2, Math.floor(height / 40)));
  for (let power = top; power >= bottom; power -= every) {
    const at = y(10 ** power);
    parts.push(element("line", {class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: at, y2: at}));
    parts.push(element("text", {class: "tick", x: MARGIN.left - 8, y: at + 4, "text-anchor": "end"}, written(10 ** power)));
  }
  const apart = [2, 5, 10, 20, 25, 50, 100].find((each) => steps / each <= 7) ?? 200;
  for (let step = 0; step <= steps; step += apart) {
    parts.push(element("text", {class: "tick", x: x(step), y: height - 8, "text-anchor": step === steps ? "end" : "middle"}, String(step)));
  }
  parts.push(element("line", {class: "now", x1: x(now), x2: x(now), y1: MARGIN.top, y2: height - MARGIN.bottom}));
  paths.forEach((path, i) => {
    const line = path.heights.map((value, k) => `${x(k).toFixed(1)},${y(value).toFixed(1)}`).join(" ");
    parts.push(element("polyline", {class: "curve", points: line, style: `--color: ${colors[i]}`}));
    const k = Math.min(now, path.heights.length - 1);
    parts.push(element("circle", {class: "walker", cx: x(k), cy: y(path.heights[k]), r: 4.5, style: `--color: ${colors[i]}`}));
  });
  svg.replaceChildren(...parts);
}

// The step below a place of the chart.
function stepAt(svg, clientX, steps) {
  const box = svg.getBoundingClientRect();
  const place = (clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
  return Math.round(steps * Math.min(Math.max(place, 0), 1));
}
