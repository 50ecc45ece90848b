// Mouse, fingers and keys.

function listen() {
  const map = get("paths"), start = get("start"), chart = get("chart"), time = get("time");
  const follow = (target, moved, begins = () => true) => {
    target.addEventListener("pointerdown", (event) => {
      if (event.button || !begins(event)) return;
      stop();
      target.setPointerCapture(event.pointerId);
      moved(event);
      event.preventDefault();
    });
    target.addEventListener("pointermove", (event) => target.hasPointerCapture(event.pointerId) && moved(event));
  };
  const here = (event) => {
    const box = map.getBoundingClientRect();
    moveStart(frame.toX(event.clientX - box.left), frame.toY(event.clientY - box.top));
    start.focus({preventScroll: true});
  };
  follow(start, here);
  // A finger beside the handle may scroll the page; a tap moves the start there.
  follow(map, here, (event) => event.pointerType !== "touch" && !start.contains(event.target));
  map.addEventListener("click", (event) => event.pointerType === "touch" && here(event));
  start.addEventListener("keydown", (event) => {
    const step = (event.shiftKey ? 40 : 8) * frame.scale, [x, y] = state.start;
    const to = {ArrowLeft: [x - step, y], ArrowRight: [x + step, y], ArrowUp: [x, y + step], ArrowDown: [x, y - step],
      Home: state.landscape.start}[event.key];
    if (!to) return;
    moveStart(...to);
    event.preventDefault();
  });
  const toStep = (step) => {
    state.now = step;
    draw();
    remember();
  };
  follow(chart, (event) => toStep(stepAt(chart, event.clientX, state.steps)));
  time.addEventListener("input", () => (stop(), toStep(Number(time.value))));
  get("play").addEventListener("click", play);
  get("add").addEventListener("click", addWalker);
  get("arrows").addEventListener("change", (event) => {
    state.arrows = event.target.checked;
    draw();
  });
  get("again").addEventListener("click", () => {
    state.seed += 1;
    changed();
  });
  get("show-code").addEventListener("toggle", (event) => event.target.open && showCode());
  new ResizeObserver(() => paths.length && draw()).observe(get("map"));
}
