/** What a run's view says and offers; `run` is a summary as the routes and events give it. */

const OVER = ["done", "stopped", "failed", "cut off"];

/** {state, rest}: the lines about a run, with the word for its state apart. */
export function words(run) {
  const wish = OVER.includes(run.state) ? "" : run.wish;
  const text = wish ? `${run.text}\n${wish} after the current micro-batch` : run.text;
  const apart = text.startsWith(run.state);
  return { state: apart ? run.state : "", rest: apart ? text.slice(run.state.length) : text };
}

/** How much of the run is done, 0 to 1. */
export function share(run) {
  return run.steps > 0 ? Math.min(1, Math.max(0, run.step / run.steps)) : 0;
}

/** What can be asked of a run now: some of pause, resume and stop. */
export function actions(run) {
  // A run that is not in this ComfyUI has no position.
  if (typeof run.position !== "number" || run.wish === "stop") return [];
  if (run.state === "queued") return ["stop"];
  if (run.state === "paused" || run.wish === "pause") return ["resume", "stop"];
  return run.state === "running" || run.state === "parked" ? ["pause", "stop"] : [];
}

/** The lines of a route's error, or of an answer that is none. */
export function errorText(answer, status) {
  const { came, can_be: canBe, to_do: toDo } = answer?.error ?? {};
  return [came, canBe, toDo].filter(Boolean).join("\n") || `ComfyUI answered ${status}.`;
}
