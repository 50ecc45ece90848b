// What the generated functions need besides Math, and numbers drawn by chance that are the same each time.

// Powers as C and Python have them: 1 to any power is 1.
function pow(x, y) {
  return x === 1 || (x === -1 && Math.abs(y) === Infinity) ? 1 : x ** y;
}

function copysign(x, y) {
  return y < 0 || Object.is(y, -0) ? -Math.abs(x) : Math.abs(x);
}

// Python's x % y and x // y, as it computes them.
function mod(x, y) {
  const rest = x % y;
  if (rest === 0) return copysign(0, y);
  return y < 0 !== rest < 0 ? rest + y : rest;
}

function floordiv(x, y) {
  const rest = x % y;
  const quotient = (x - rest) / y - (rest !== 0 && y < 0 !== rest < 0 ? 1 : 0);
  if (quotient === 0) return copysign(0, x / y);
  const below = Math.floor(quotient);
  return quotient - below > 0.5 ? below + 1 : below;
}

// Uniform in (0, 1): a hash of a counter.
function uniform(counter) {
  let z = (counter + 0x9e3779b9) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return (((z ^ (z >>> 15)) >>> 0) + 0.5) / 4294967296;
}

// A pair of standard normal numbers for a step: the same for every optimizer, so that the comparison is fair.
function normals(seed, step) {
  const first = uniform(seed * 7919 + 2 * step), second = uniform(seed * 7919 + 2 * step + 1);
  const radius = Math.sqrt(-2 * Math.log(first));
  return [radius * Math.cos(2 * Math.PI * second), radius * Math.sin(2 * Math.PI * second)];
}
