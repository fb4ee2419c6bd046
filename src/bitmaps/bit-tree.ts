/**
 * The tree of bits below a hierarchical bitmap (BL-HB-1). A leaf holds 2^15 bits, a branch 256 subtrees, and each knows
 * how many of its bits are set, so that what is clean or wholly dirty is skipped at any height, and neither has storage:
 * a subtree that becomes uniform is replaced by a shared constant. Positions are bits, relative to the subtree.
 */
import { invariant } from '../core/invariant.ts';

/** Without words and children: uniform, by its count. A tree with either is never uniform, and belongs to one owner. */
export interface BitTree {
  count: number;
  readonly words: Int32Array | undefined;
  readonly children: BitTree[] | undefined;
}

export const LEAF_BITS = 2 ** 15;
export const LEAF_WORDS = LEAF_BITS / 32;
export const FAN_OUT = 256;

/** Bits below a tree of each level; level 0 is a leaf. */
const SPANS = [LEAF_BITS, 2 ** 23, 2 ** 31, 2 ** 39, 2 ** 47] as const;

export const CLEAN: BitTree = { count: 0, words: undefined, children: undefined };
const FULL: readonly BitTree[] = SPANS.map((count) => ({ count, words: undefined, children: undefined }));

/** The lowest level that holds this many bits. */
export function levelFor(bits: number): number {
  const level = SPANS.findIndex((span) => bits <= span);
  invariant(level >= 0, 'a bitmap has at most 2^47 bits');
  return level;
}

/** Bits below a tree of this level. */
export function spanOf(level: number): number {
  return SPANS[level] ?? 0;
}

/** A subtree; of a uniform tree, the uniform one. */
export function childOf(tree: BitTree, level: number, index: number): BitTree {
  return tree.children?.[index] ?? uniform(level - 1, tree.count !== 0);
}

function uniform(level: number, dirty: boolean): BitTree {
  return (dirty ? FULL[level] : undefined) ?? CLEAN;
}

/** The tree itself, or one like it that can be changed where it is uniform. */
function opened(tree: BitTree, level: number): BitTree {
  if (tree.words !== undefined || tree.children !== undefined) return tree;
  const { count } = tree;
  if (level > 0) {
    const children = new Array<BitTree>(FAN_OUT).fill(uniform(level - 1, count !== 0));
    return { count, words: undefined, children };
  }
  const words = new Int32Array(LEAF_WORDS);
  if (count !== 0) words.fill(-1);
  return { count, words, children: undefined };
}

/** The constant in place of a tree that has become uniform. */
function settled(tree: BitTree, level: number): BitTree {
  if (tree.count === 0) return CLEAN;
  return tree.count === spanOf(level) ? uniform(level, true) : tree;
}

/** A tree of the next level that begins with this one and is clean else. */
export function raised(tree: BitTree, level: number): BitTree {
  if (tree.count === 0) return CLEAN;
  const parent = opened(CLEAN, level + 1);
  (parent.children as BitTree[])[0] = tree;
  parent.count = tree.count;
  return parent;
}

export function copyOf(tree: BitTree): BitTree {
  if (tree.words !== undefined) return { count: tree.count, words: tree.words.slice(), children: undefined };
  if (tree.children !== undefined) {
    return { count: tree.count, words: undefined, children: tree.children.map(copyOf) };
  }
  return tree;
}

/** Sets or clears [start, end); changes `tree`, and returns what stands in its place. Not for empty ranges. */
export function fill(tree: BitTree, level: number, start: number, end: number, dirty: boolean): BitTree {
  const span = spanOf(level);
  if (tree.count === (dirty ? span : 0)) return tree;
  if (start === 0 && end === span) return uniform(level, dirty);
  const own = opened(tree, level);
  if (own.words !== undefined) own.count += fillWords(own.words, start, end, dirty);
  else {
    const children = own.children as BitTree[];
    const childSpan = spanOf(level - 1);
    let index = Math.floor(start / childSpan);
    for (let at = index * childSpan; at < end; at += childSpan, index++) {
      const child = children[index] as BitTree;
      const before = child.count;
      const after = fill(child, level - 1, Math.max(0, start - at), Math.min(childSpan, end - at), dirty);
      children[index] = after;
      own.count += after.count - before;
    }
  }
  return settled(own, level);
}

/** Sets or clears the bits [start, end) of words. Returns by how much the count of set ones changes. */
export function fillWords(words: Int32Array, start: number, end: number, dirty: boolean): number {
  const first = start >>> 5;
  const last = (end - 1) >>> 5;
  let change = 0;
  for (let index = first; index <= last; index++) {
    let mask = -1;
    if (index === first) mask &= -1 << (start & 31);
    if (index === last) mask &= -1 >>> (31 - ((end - 1) & 31));
    const before = words[index] as number;
    const after = dirty ? before | mask : before & ~mask;
    change += bitsIn(before ^ after);
    words[index] = after;
  }
  return dirty ? change : -change;
}

/** How many bits of a word are set. */
function bitsIn(word: number): number {
  const pairs = word - ((word >>> 1) & 0x55555555);
  const fours = (pairs & 0x33333333) + ((pairs >>> 2) & 0x33333333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/**
 * The first bit at or after `from` that is set (or clean); -1 where there is none. Looks into the leaf of `from` first,
 * where it mostly is, on a path of small integers.
 */
export function find(tree: BitTree, level: number, from: number, dirty: boolean): number {
  const leaf = Math.floor(from / LEAF_BITS);
  let own = tree;
  for (let shift = (level - 1) * 8; own.children !== undefined; shift -= 8) {
    own = own.children[(leaf >>> shift) & (FAN_OUT - 1)] as BitTree;
  }
  if (own.words === undefined) {
    if ((own.count !== 0) === dirty) return from;
  } else {
    const found = findInWords(own.words, from - leaf * LEAF_BITS, dirty);
    if (found >= 0) return leaf * LEAF_BITS + found;
  }
  const next = (leaf + 1) * LEAF_BITS;
  return next < spanOf(level) ? findBelow(tree, level, next, dirty) : -1;
}

function findBelow(tree: BitTree, level: number, from: number, dirty: boolean): number {
  const span = spanOf(level);
  if (tree.count === (dirty ? 0 : span)) return -1;
  if (tree.count === (dirty ? span : 0)) return from;
  if (tree.words !== undefined) return findInWords(tree.words, from, dirty);
  const children = tree.children as BitTree[];
  const childSpan = spanOf(level - 1);
  for (let index = Math.floor(from / childSpan); index < FAN_OUT; index++) {
    const at = index * childSpan;
    const found = findBelow(children[index] as BitTree, level - 1, Math.max(0, from - at), dirty);
    if (found >= 0) return at + found;
  }
  return -1;
}

export function findInWords(words: Int32Array, from: number, dirty: boolean): number {
  const flip = dirty ? 0 : -1;
  let index = from >>> 5;
  let word = ((words[index] as number) ^ flip) & (-1 << (from & 31));
  while (word === 0) {
    index++;
    if (index === LEAF_WORDS) return -1;
    word = (words[index] as number) ^ flip;
  }
  return index * 32 + 31 - Math.clz32(word & -word);
}

/** Adds the bits of `source`, a tree of the same level that stays as it is; as {@link fill} else. */
export function union(target: BitTree, source: BitTree, level: number): BitTree {
  const span = spanOf(level);
  if (source.count === 0 || target.count === span) return target;
  if (target.count === 0 || source.count === span) return copyOf(source);
  if (target.words !== undefined) target.count = unionWords(target.words, source.words as Int32Array);
  else {
    const children = target.children as BitTree[];
    const others = source.children as BitTree[];
    let count = 0;
    for (let index = 0; index < FAN_OUT; index++) {
      const child = union(children[index] as BitTree, others[index] as BitTree, level - 1);
      children[index] = child;
      count += child.count;
    }
    target.count = count;
  }
  return settled(target, level);
}

/** Returns the new count. */
function unionWords(words: Int32Array, others: Int32Array): number {
  let count = 0;
  for (let index = 0; index < LEAF_WORDS; index++) {
    const word = (words[index] as number) | (others[index] as number);
    words[index] = word;
    count += bitsIn(word);
  }
  return count;
}

/** Adds the bits of `words` from bit `from`, a multiple of 32, on; as {@link fill} else. */
export function orWords(tree: BitTree, level: number, from: number, words: Int32Array): BitTree {
  if (tree.count === spanOf(level)) return tree;
  const own = opened(tree, level);
  if (own.words !== undefined) {
    const first = from >>> 5;
    for (let index = 0; index < words.length; index++) {
      const before = own.words[first + index] as number;
      const after = before | (words[index] as number);
      own.words[first + index] = after;
      own.count += bitsIn(before ^ after);
    }
  } else {
    const children = own.children as BitTree[];
    const childSpan = spanOf(level - 1);
    for (let done = 0; done < words.length; ) {
      const index = Math.floor((from + done * 32) / childSpan);
      const start = from + done * 32 - index * childSpan;
      const length = Math.min(words.length - done, (childSpan - start) / 32);
      const child = children[index] as BitTree;
      const before = child.count;
      const after = orWords(child, level - 1, start, words.subarray(done, done + length));
      children[index] = after;
      own.count += after.count - before;
      done += length;
    }
  }
  return settled(own, level);
}

/** The bits from `from`, a multiple of 32, into clean bytes, lowest bit of the first byte first (BL-HB-7). */
export function readBits(tree: BitTree, level: number, from: number, bytes: Uint8Array): void {
  if (tree.count === 0) return;
  if (tree.count === spanOf(level)) bytes.fill(255);
  else if (tree.words !== undefined) wordsToBytes(tree.words, from >>> 5, bytes);
  else {
    const childSpan = spanOf(level - 1);
    for (let done = 0; done < bytes.length; ) {
      const index = Math.floor((from + done * 8) / childSpan);
      const start = from + done * 8 - index * childSpan;
      const length = Math.min(bytes.length - done, (childSpan - start) / 8);
      readBits((tree.children as BitTree[])[index] as BitTree, level - 1, start, bytes.subarray(done, done + length));
      done += length;
    }
  }
}

function wordsToBytes(words: Int32Array, first: number, bytes: Uint8Array): void {
  const whole = bytes.length & ~3;
  let index = first;
  for (let at = 0; at < whole; at += 4) {
    const word = words[index++] as number;
    bytes[at] = word;
    bytes[at + 1] = word >>> 8;
    bytes[at + 2] = word >>> 16;
    bytes[at + 3] = word >>> 24;
  }
  for (let at = whole; at < bytes.length; at++) bytes[at] = (words[index] as number) >>> (8 * (at - whole));
}

/** Replaces the bits [from, to) by those in `bytes`; `from` is a multiple of 32. As {@link fill} else. */
export function writeBits(tree: BitTree, level: number, from: number, to: number, bytes: Uint8Array): BitTree {
  const own = opened(tree, level);
  if (own.words !== undefined) own.count += bytesToWords(own.words, from, to, bytes);
  else {
    const children = own.children as BitTree[];
    const childSpan = spanOf(level - 1);
    for (let at = from; at < to; ) {
      const index = Math.floor(at / childSpan);
      const base = index * childSpan;
      const end = Math.min(to, base + childSpan);
      const child = children[index] as BitTree;
      const before = child.count;
      const part = bytes.subarray((at - from) / 8, Math.ceil((end - from) / 8));
      const after = writeBits(child, level - 1, at - base, end - base, part);
      children[index] = after;
      own.count += after.count - before;
      at = end;
    }
  }
  return settled(own, level);
}

/** Returns by how much the count changes. */
function bytesToWords(words: Int32Array, from: number, to: number, bytes: Uint8Array): number {
  const last = (to - 1) >>> 5;
  let change = 0;
  let at = 0;
  for (let index = from >>> 5; index <= last; index++, at += 4) {
    const before = words[index] as number;
    const mask = index === last ? -1 >>> (31 - ((to - 1) & 31)) : -1;
    const given =
      (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8) | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24);
    const after = (before & ~mask) | (given & mask);
    change += bitsIn(after) - bitsIn(before);
    words[index] = after;
  }
  return change;
}
