/** Shows each run on the Tandem Trainer nodes that have its name. */

import { api } from "../../../scripts/api.js";
import { app } from "../../../scripts/app.js";
import { nodesOfType, textInput } from "../lib/graph_names.js";
import { errorText } from "../lib/job_text.js";
import { RunList } from "../lib/run_list.js";
import { JobView } from "./job_view.js";

const TRAINER = "TandemTrainer";
const WIDGET = "tandem_job";
const MARGIN_PX = 10;
/** The graph does not say when a name changes that comes through a link or from a subgraph. */
const LOOK_EVERY_MS = 500;

const runs = new RunList();
/** node -> {view, widget, run, resizes} */
const shown = new WeakMap();

function look() {
  const root = app.rootGraph;
  for (const node of nodesOfType(root, TRAINER)) showOn(node, runs.get(textInput(root, node, "name")));
}

function showOn(node, run) {
  const known = shown.get(node);
  if (known?.run === run) return;
  if (!run) return hide(node, known);
  const { view } = known ?? addTo(node);
  shown.get(node).run = run;
  view.show(run);
}

function addTo(node) {
  const view = new JobView((action) => ask(shown.get(node).run, action));
  let height = 0;
  const widget = node.addDOMWidget(WIDGET, "tandem_job", view.element, {
    serialize: false,
    // The panel would take the element away from the node.
    hideInPanel: true,
    margin: MARGIN_PX,
    getMinHeight: () => height + 2 * MARGIN_PX,
    getMaxHeight: () => height + 2 * MARGIN_PX,
  });
  widget.serialize = false;
  const resizes = new ResizeObserver(() => {
    // Zoomed out or off the screen it has no height.
    if (!view.content.offsetHeight || view.content.offsetHeight === height) return;
    height = view.content.offsetHeight;
    node.setDirtyCanvas(true, true);
  });
  resizes.observe(view.content);
  // In the classic canvas the element lies over the canvas and would keep the wheel from it.
  view.element.addEventListener("wheel", (event) => {
    if (!LiteGraph.vueNodesMode && !view.scrolls()) app.canvas.processMouseWheel(event);
  });
  shown.set(node, { view, widget, resizes });
  node.setDirtyCanvas(true, true);
  return shown.get(node);
}

function hide(node, { widget, resizes }) {
  resizes.disconnect();
  // A node that is added to a graph again brings back all it ever had, but not what is hidden.
  widget.hidden = true;
  if (node.widgets.includes(widget)) node.removeWidget(widget);
  shown.delete(node);
  node.setDirtyCanvas(true, true);
}

async function ask(run, action) {
  runs.answer(await fetchJson(`/tandem/jobs/${run.id}/${action}`, { method: "POST" }));
  look();
}

async function readList() {
  const before = runs.names();
  try {
    runs.replace((await fetchJson("/tandem/jobs")).jobs, before);
  } catch (error) {
    console.warn(`Tandem: the list of runs could not be read. ${error.message}`);
  }
  look();
}

async function fetchJson(route, options) {
  const response = await api.fetchApi(route, options);
  const answer = await response.json().catch(() => null);
  if (!response.ok || !answer) throw new Error(errorText(answer, response.status));
  return answer;
}

function addStyles() {
  const link = document.createElement("link");
  link.rel = "stylesheet";
  link.href = new URL("./jobs.css", import.meta.url).href;
  document.head.append(link);
}

app.registerExtension({
  name: "Tandem.Jobs",
  setup() {
    addStyles();
    api.addEventListener("tandem.job", ({ detail }) => {
      runs.tell(detail);
      look();
    });
    api.addEventListener("reconnected", readList);
    setInterval(look, LOOK_EVERY_MS);
    readList();
  },
  afterConfigureGraph() {
    readList();
  },
});
