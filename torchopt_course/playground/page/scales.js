// Between an option's value and a slider's place, 0 to 1; and how numbers are written.

const ZERO = 0.04; // the part of a logarithmic slider that stands for 0

function valueAt(slider, place) {
  const {scale, low, high} = slider;
  const between = (a, b, t) => a * (b / a) ** t;
  let value;
  if (scale === "log") value = between(low, high, place);
  else if (scale === "log or 0") value = place < ZERO ? 0 : between(low, high, (place - ZERO) / (1 - ZERO));
  else if (scale === "rate") value = low + (1 - low) * (1 - ((1 - high) / (1 - low)) ** place);
  else value = low + (high - low) * place;
  if (value === 0 && scale === "log or 0") return 0;
  const round = scale === "whole" ? Math.round(value) : Number(value.toPrecision(scale === "rate" ? 5 : 3));
  return Math.min(Math.max(round, low), high); // an end may be where the constructor begins to refuse
}

function placeOf(slider, value) {
  const {scale, low, high} = slider;
  let place;
  if (scale === "log") place = Math.log(value / low) / Math.log(high / low);
  else if (scale === "log or 0") place = value === 0 ? 0 : ZERO + (1 - ZERO) * Math.log(value / low) / Math.log(high / low);
  else if (scale === "rate") place = Math.log((1 - value) / (1 - low)) / Math.log((1 - high) / (1 - low));
  else place = (value - low) / (high - low);
  return Math.min(Math.max(place, 0), 1);
}

function written(value) {
  if (value === 0 || !Number.isFinite(value)) return String(value).replace("Infinity", "∞");
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e5) {
    const [digits, power] = value.toExponential(1).split("e");
    const raised = [...power.replace("+", "")].map((c) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[c] ?? "⁻").join("");
    return (digits === "1.0" ? "10" : `${digits.replace(".0", "")}·10`) + raised;
  }
  return String(Number(value.toPrecision(size < 1 && size > 0.9 ? 4 : 3))).replace("-", "−");
}

const NAMES = {
  lr: "learning rate", momentum: "momentum β", "betas.0": "β₁", "betas.1": "β₂", alpha: "α", eps: "ε",
  weight_decay: "weight decay", lr_decay: "rate decay", dampening: "dampening",
};
function label(key) {
  return NAMES[key] ?? key.replaceAll("_", " ").replace(/\.(\d+)$/, (_, i) => ` ${Number(i) + 1}`);
}
