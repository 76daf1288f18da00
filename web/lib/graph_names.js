/** Which runs the nodes of a graph belong to. */

const SUBGRAPH_INPUT = -10;
const ACTIVE = 0;
const VALUE_TYPES = ["PrimitiveNode", "PrimitiveString", "PrimitiveStringMultiline"];
const DEEPEST = 20;

/** Every node of a type, in the root graph and in its subgraphs. */
export function nodesOfType(root, type) {
  return everyNode(root).filter((node) => node.type === type);
}

/** The value of a text input, also through links; undefined when only a run of the graph could tell. */
export function textInput(root, node, name) {
  const input = node.inputs?.find((slot) => slot.name === name);
  const value = input
    ? slotValue(root, node, input, 0)
    : node.widgets?.find((widget) => widget.name === name)?.value;
  return typeof value === "string" ? value : undefined;
}

function everyNode(root) {
  return [root, ...(root?.subgraphs?.values() ?? [])].flatMap((graph) => graph?.nodes ?? []);
}

function slotValue(root, node, input, depth) {
  if (depth > DEEPEST) return undefined;
  if (input.link != null) return linkedValue(root, node.graph, input.link, depth + 1);
  const widget = node.getWidgetFromSlot?.(input);
  return (widget ?? node.widgets?.find((other) => other.name === input.widget?.name))?.value;
}

function linkedValue(root, graph, id, depth) {
  const link = graph?.getLink(id);
  if (!link) return undefined;
  if (Number(link.origin_id) === SUBGRAPH_INPUT) return outerValue(root, graph, link.origin_slot, depth);
  const origin = graph.getNodeById(link.origin_id);
  if (!origin || origin.mode !== ACTIVE) return undefined;
  if (origin.type === "Reroute") return slotValue(root, origin, origin.inputs[0], depth);
  if (!VALUE_TYPES.includes(origin.type)) return undefined;
  const input = origin.inputs?.find((slot) => slot.name === "value");
  return input ? slotValue(root, origin, input, depth) : origin.widgets?.[0]?.value;
}

/** What the nodes that stand for a subgraph give to one of its inputs, if they all give the same. */
function outerValue(root, graph, slot, depth) {
  const hosts = everyNode(root).filter((node) => node.subgraph === graph);
  const values = new Set(hosts.map((host) => slotValue(root, host, host.inputs[slot], depth)));
  return values.size === 1 ? [...values][0] : undefined;
}
