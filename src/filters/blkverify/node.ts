/** A node that compares, and the handle by which others see what it found. */
import type { DriverNode, OpenContext } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { childStatus } from '../../core/filter.ts';
import { invariant } from '../../core/invariant.ts';
import { Link, type NodeTarget, nodeOf } from '../../core/node.ts';
import { type MismatchPolicy, Verifier } from './verifier.ts';

export interface BlkverifyOptions {
  readonly 'on-mismatch': MismatchPolicy;
  readonly 'discard-result': 'unverified' | 'zero';
  readonly 'flush-raw': boolean;
}

const verifiers = new WeakMap<Partial<DriverNode>, Verifier>();

/** Counters, whole-device comparison and callback of a blkverify node. TypeError for another node. */
export function blkverifyOf(target: NodeTarget): Verifier {
  const node = nodeOf(target);
  const verifier = verifiers.get(node.impl);
  if (verifier === undefined) throw new TypeError(`node '${node.name}' is no blkverify node`);
  return verifier;
}

export async function openBlkverify(context: OpenContext<BlkverifyOptions>): Promise<Partial<DriverNode>> {
  const { options, host, node, file: test } = context;
  const raw = context.child('raw');
  invariant(test instanceof Link && raw instanceof Link, 'children are links');
  if (raw.length() < test.length()) {
    const text = `The raw copy is shorter than the image under test: ${raw.length()} bytes, not ${test.length()}`;
    throw new BlockError('EINVAL', text, { node });
  }
  const verifier = new Verifier({
    host,
    node,
    test,
    raw,
    policy: options['on-mismatch'],
    discardZeroes: options['discard-result'] === 'zero',
    flushRaw: options['flush-raw'],
  });
  const impl: Partial<DriverNode> = {
    read: (offset, target) => verifier.read(offset, target),
    tryReadNow: (offset, target) => verifier.tryReadNow(offset, target),
    write: (offset, source) => verifier.write(offset, source),
    writeZeroes: (offset, length, flags) => verifier.writeZeroes(offset, length, flags),
    discard: (offset, length) => verifier.discard(offset, length),
    flush: () => verifier.flush(),
    truncate: (length, how) => verifier.truncate(length, how),
    ...childStatus(test),
    // Both hold the same data, or it fails (BV-14).
    showsChild: () => true,
  };
  verifiers.set(impl, verifier);
  return impl;
}
