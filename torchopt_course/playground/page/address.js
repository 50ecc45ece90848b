// The address keeps what is set, so that a link shows the same.

let remembering = 0;

function remember() {
  const {landscape, parameters, start, steps, now, noise, seed, walkers} = state;
  const kept = {landscape: landscape.name, parameters, start, steps, now, noise, seed,
    walkers: walkers.map(({optimizer, options}) => ({name: optimizer.name, options}))};
  clearTimeout(remembering);
  remembering = setTimeout(() => history.replaceState(null, "", `#${encodeURIComponent(JSON.stringify(kept))}`), 400);
}

function remembered() {
  try {
    const kept = JSON.parse(decodeURIComponent(location.hash.slice(1)));
    const landscape = named(LANDSCAPES, kept.landscape);
    const walkers = kept.walkers.slice(0, COLORS.length).map(({name, options}) => {
      const walker = newWalker(named(OPTIMIZERS, name));
      for (const key of Object.keys(walker.options)) if (typeof options[key] === typeof walker.options[key]) walker.options[key] = options[key];
      return walker;
    });
    const numbers = [...kept.parameters, ...kept.start, kept.steps, kept.now, kept.noise, kept.seed];
    if (!numbers.every(Number.isFinite) || kept.parameters.length !== landscape.parameters.length) return false;
    Object.assign(state, kept, {landscape, walkers, steps: Math.min(Math.max(Math.round(kept.steps), 10), 500)});
    return walkers.length > 0;
  } catch {
    return false;
  }
}
