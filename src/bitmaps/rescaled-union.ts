/** Adding what is dirty in a bitmap of another granularity, rounded outward (BL-HB-6). */
import {
  type BitTree,
  childOf,
  FAN_OUT,
  fill,
  fillWords,
  findInWords,
  LEAF_BITS,
  LEAF_WORDS,
  orWords,
  spanOf,
} from './bit-tree.ts';

/** A leaf with so few bits is added run by run; one with more is first scaled as a whole. */
const FEW_BITS = 128;
/** Leaves are scaled as a whole to lengths between one word and this many. */
const SCALED_WORDS_MAX = LEAF_WORDS * 32;

type Visit = (start: number, end: number) => void;

/** `scale` is how many bits of the target a bit of the source stands for, a power of two, or one over it. */
export interface Rescaling {
  readonly source: BitTree;
  readonly sourceLevel: number;
  readonly scale: number;
  /** The target's bits; the source's last bit may reach past them. */
  readonly bits: number;
}

/** Changes `target`, and returns what stands in its place. */
export function unionRescaled(
  target: BitTree,
  level: number,
  { source, sourceLevel, scale, bits }: Rescaling,
): BitTree {
  let tree = target;
  let done = 0;
  const add = (start: number, end: number) => {
    const from = Math.max(done, Math.floor(start * scale));
    const to = Math.min(bits, Math.ceil(end * scale));
    if (from >= to) return;
    tree = fill(tree, level, from, to, true);
    done = to;
  };
  const scaledWords = LEAF_WORDS * scale;
  const asWhole = scaledWords >= 1 && scaledWords <= SCALED_WORDS_MAX;
  const scaled = new Int32Array(asWhole ? scaledWords : 0);
  eachPiece(source, sourceLevel, 0, (piece, start) => {
    const { words, count } = piece;
    if (words === undefined) add(start, start + count);
    else if (!asWhole || count < FEW_BITS) eachRun(words, (first, end) => add(start + first, start + end));
    else {
      const base = start * scale;
      const room = bits - base;
      scaled.fill(0);
      eachRun(words, (first, end) => {
        fillWords(scaled, Math.floor(first * scale), Math.min(room, Math.ceil(end * scale)), true);
      });
      tree = orWords(tree, level, base, scaled.subarray(0, Math.ceil(room / 32)));
    }
  });
  return tree;
}

/** Uniformly dirty subtrees and leaves, ascending. */
function eachPiece(tree: BitTree, level: number, base: number, visit: (piece: BitTree, start: number) => void): void {
  if (tree.count === 0) return;
  if (tree.children === undefined) visit(tree, base);
  else {
    const childSpan = spanOf(level - 1);
    for (let index = 0; index < FAN_OUT; index++) {
      eachPiece(childOf(tree, level, index), level - 1, base + index * childSpan, visit);
    }
  }
}

/** The runs of set bits of a leaf. */
function eachRun(words: Int32Array, visit: Visit): void {
  for (let start = findInWords(words, 0, true); start >= 0; ) {
    const clean = findInWords(words, start, false);
    const end = clean < 0 ? LEAF_BITS : clean;
    visit(start, end);
    start = end < LEAF_BITS ? findInWords(words, end, true) : -1;
  }
}
