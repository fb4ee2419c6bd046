/**
 * A simple layered layout: parents above children, long links through empty places of the layers between, an order with
 * few crossings, and each box as near to its neighbours as the others let it.
 */

export interface LayoutBox {
  readonly id: string;
  readonly width: number;
  readonly height: number;
}

export interface LayoutLink {
  readonly from: string;
  readonly to: string;
}

export interface Gaps {
  /** Between boxes of a layer, and between layers. */
  readonly across: number;
  readonly down: number;
}

/** The centre of the upper edge. */
export interface Place {
  readonly x: number;
  readonly y: number;
}

/** Where a link goes straight down through a layer. */
export interface Pass extends Place {
  readonly bottom: number;
}

export interface Layout {
  readonly places: ReadonlyMap<string, Place>;
  /** For each link, in order: where it passes the layers between its ends. */
  readonly passes: readonly (readonly Pass[])[];
  readonly width: number;
  readonly height: number;
}

interface Slot {
  readonly width: number;
  readonly height: number;
  readonly above: Slot[];
  readonly below: Slot[];
  x: number;
  y: number;
  /** Of its layer. */
  bottom: number;
}

const SWEEPS = 8;
const PASS_WIDTH = 16;

/** Places boxes; links lead down and form no loops. Everything lies in the area from 0,0 to `width`,`height`. */
export function layered(boxes: readonly LayoutBox[], links: readonly LayoutLink[], gaps: Gaps): Layout {
  const depth = depths(boxes, links);
  const layers: Slot[][] = [];
  const put = (layer: number, width: number, height: number): Slot => {
    const slot = { width, height, above: [], below: [], x: 0, y: 0, bottom: 0 };
    while (layers.length <= layer) layers.push([]);
    layers[layer]?.push(slot);
    return slot;
  };
  const slots = new Map(boxes.map(({ id, width, height }) => [id, put(depth.get(id) ?? 0, width, height)]));
  const passing = links.map(({ from, to }) => {
    const between: Slot[] = [];
    for (let at = (depth.get(from) ?? 0) + 1; at < (depth.get(to) ?? 0); at++) between.push(put(at, PASS_WIDTH, 0));
    const way = [slots.get(from), ...between, slots.get(to)].filter((slot) => slot !== undefined);
    for (const [index, slot] of way.slice(1).entries()) {
      slot.above.push(way[index] as Slot);
      way[index]?.below.push(slot);
    }
    return between;
  });
  orderLayers(layers);
  placeAcross(layers, gaps.across);
  const height = placeDown(layers, gaps.down);
  const all = layers.flat();
  const left = Math.min(0, ...all.map(({ x, width }) => x - width / 2));
  for (const slot of all) slot.x -= left;
  return {
    places: new Map([...slots].map(([id, { x, y }]) => [id, { x, y }])),
    passes: passing.map((between) => between.map(({ x, y, bottom }) => ({ x, y, bottom }))),
    width: Math.max(0, ...all.map(({ x, width }) => x + width / 2)),
    height,
  };
}

/** The longest way down to each box. */
function depths(boxes: readonly LayoutBox[], links: readonly LayoutLink[]): Map<string, number> {
  const depth = new Map(boxes.map(({ id }) => [id, 0]));
  for (let changed = true, rounds = 0; changed && rounds <= boxes.length; rounds++) {
    changed = false;
    for (const { from, to } of links) {
      const least = (depth.get(from) ?? 0) + 1;
      if ((depth.get(to) ?? 0) >= least) continue;
      depth.set(to, least);
      changed = true;
    }
  }
  return depth;
}

/** Sorts each layer by where the neighbours of its slots are, down and up in turns. */
function orderLayers(layers: readonly Slot[][]): void {
  const number = () => {
    for (const layer of layers) for (const [index, slot] of layer.entries()) slot.x = index;
  };
  number();
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const down = sweep % 2 === 0;
    for (const layer of down ? layers : [...layers].reverse()) {
      const wanted = new Map(layer.map((slot) => [slot, mean(down ? slot.above : slot.below) ?? slot.x]));
      layer.sort((a, b) => (wanted.get(a) ?? 0) - (wanted.get(b) ?? 0));
      for (const [index, slot] of layer.entries()) slot.x = index;
    }
  }
}

function mean(slots: readonly Slot[]): number | undefined {
  return slots.length === 0 ? undefined : slots.reduce((sum, { x }) => sum + x, 0) / slots.length;
}

/** Moves slots towards their neighbours, in the order of their layer and without overlap. */
function placeAcross(layers: readonly Slot[][], gap: number): void {
  for (const layer of layers) spread(layer, gap, () => 0);
  for (let sweep = 0; sweep < 2 * SWEEPS; sweep++) {
    const down = sweep % 2 === 0;
    for (const layer of down ? layers : [...layers].reverse()) {
      spread(
        layer,
        gap,
        (slot) => mean(down ? slot.above : slot.below) ?? mean(slot.below) ?? mean(slot.above) ?? slot.x,
      );
    }
  }
}

/** Slots that want the same place share it as a block whose middle is where they want on average. */
function spread(layer: readonly Slot[], gap: number, wanted: (slot: Slot) => number): void {
  interface Block {
    /** Distances of its slots from its first. */
    readonly members: { readonly slot: Slot; readonly shift: number }[];
    start: number;
    width: number;
  }
  const blocks: Block[] = [];
  for (const slot of layer) {
    let block: Block = { members: [{ slot, shift: 0 }], start: wanted(slot), width: 0 };
    for (let before = blocks.at(-1); before !== undefined; before = blocks.at(-1)) {
      const last = before.members.at(-1)?.slot;
      const distance = ((last?.width ?? 0) + (block.members[0]?.slot.width ?? 0)) / 2 + gap;
      if (before.start + before.width + distance <= block.start) break;
      blocks.pop();
      const shift = before.width + distance;
      const members = [...before.members, ...block.members.map((each) => ({ ...each, shift: each.shift + shift }))];
      const start = members.reduce((sum, each) => sum + wanted(each.slot) - each.shift, 0) / members.length;
      block = { members, start, width: shift + block.width };
    }
    blocks.push(block);
  }
  for (const { members, start } of blocks) for (const { slot, shift } of members) slot.x = start + shift;
}

/** Returns the height of all. */
function placeDown(layers: readonly Slot[][], gap: number): number {
  let y = 0;
  for (const layer of layers) {
    const bottom = y + Math.max(0, ...layer.map(({ height }) => height));
    for (const slot of layer) Object.assign(slot, { y, bottom });
    y = bottom + gap;
  }
  return Math.max(0, y - gap);
}
