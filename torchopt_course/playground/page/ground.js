// The landscape as bands of equal height.

const BANDS = 22;
const TONES = [[255, 253, 246], [222, 231, 234], [139, 166, 188]]; // the valley is light: there paths are dense

// The picture's part of the plane: the landscape's view, made as wide or as high as the picture asks.
function frameOf(landscape, width, height) {
  let [left, right, bottom, top] = landscape.view;
  const scale = Math.max((right - left) / width, (top - bottom) / height);
  const x = (left + right) / 2, y = (bottom + top) / 2;
  return {
    scale, width, height, left: x - (scale * width) / 2, top: y + (scale * height) / 2,
    toX(px) { return this.left + px * this.scale; },
    toY(py) { return this.top - py * this.scale; },
    fromX(value) { return (value - this.left) / this.scale; },
    fromY(value) { return (this.top - value) / this.scale; },
  };
}

// Logarithmic from the lowest point on, so that a narrow valley's floor is told from its walls.
function bandScale(landscape, parameters, frame) {
  const seen = [];
  for (let i = 0; i <= 24; i++) {
    for (let j = 0; j <= 16; j++) {
      const x = frame.toX((i / 24) * frame.width), y = frame.toY((j / 16) * frame.height);
      seen.push(landscape.height(x, y, ...parameters) - landscape.lowest);
    }
  }
  seen.sort((a, b) => a - b);
  const high = seen[Math.floor(seen.length * 0.97)] || 1, knee = Math.max(seen[Math.floor(seen.length * 0.02)], high / 400);
  return (height) => Math.log1p(Math.max(height - landscape.lowest, 0) / knee) / Math.log1p(high / knee);
}

// The level at each pixel, between those at a coarser grid: the function is smooth, and dear.
function levelsOf(landscape, parameters, frame, ratio, width, height) {
  const coarse = ratio * Math.min(3, frame.width / 200), columns = Math.ceil(width / coarse) + 2, rows = Math.ceil(height / coarse) + 2;
  const band = bandScale(landscape, parameters, frame), grid = new Float64Array(columns * rows);
  for (let j = 0; j < rows; j++) {
    for (let i = 0; i < columns; i++) {
      const x = frame.toX((i * coarse) / ratio), y = frame.toY((j * coarse) / ratio);
      grid[j * columns + i] = BANDS * band(landscape.height(x, y, ...parameters));
    }
  }
  const levels = new Float64Array(width * height);
  for (let j = 0; j < height; j++) {
    const row = Math.floor(j / coarse), down = j / coarse - row;
    for (let i = 0; i < width; i++) {
      const column = Math.floor(i / coarse), right = i / coarse - column, at = row * columns + column;
      const above = grid[at] + (grid[at + 1] - grid[at]) * right;
      const below = grid[at + columns] + (grid[at + columns + 1] - grid[at + columns]) * right;
      levels[j * width + i] = above + (below - above) * down;
    }
  }
  return levels;
}

function drawGround(canvas, landscape, parameters, frame, ratio) {
  const width = Math.round(frame.width * ratio), height = Math.round(frame.height * ratio);
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), pixels = image.data;
  const levels = levelsOf(landscape, parameters, frame, ratio, width, height);
  for (let j = 0; j < height; j++) {
    for (let i = 0; i < width; i++) {
      const here = levels[j * width + i];
      // How fast the level changes tells how far the next line is: lines are smooth and equally thin.
      const dx = levels[j * width + Math.min(i + 1, width - 1)] - levels[j * width + Math.max(i - 1, 0)];
      const dy = levels[Math.min(j + 1, height - 1) * width + i] - levels[Math.max(j - 1, 0) * width + i];
      const steepness = Math.sqrt(dx * dx + dy * dy) / 2 + 1e-9;
      const distance = Math.abs(here - Math.round(here)) / steepness / ratio;
      const tone = Math.min(Math.floor(here) / BANDS, 1);
      const line = Math.max(0, 1 - distance) * Math.min(1, 0.9 / steepness) * 0.16;
      const at = 4 * (j * width + i), upper = tone > 0.5, half = 2 * tone - upper;
      const low = TONES[upper ? 1 : 0], high = TONES[upper ? 2 : 1];
      for (let c = 0; c < 3; c++) pixels[at + c] = (low[c] + (high[c] - low[c]) * half) * (1 - line);
      pixels[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}
