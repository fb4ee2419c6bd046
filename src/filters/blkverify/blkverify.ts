/** Mirrors every request to a trusted copy and compares, as QEMU's filter of that name (specification: the BV rules). */
import { type DriverNode, defineFilter } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { childStatus } from '../../core/filter.ts';
import { invariant } from '../../core/invariant.ts';
import { Link, type NodeTarget, nodeOf } from '../../core/node.ts';
import { option } from '../../core/options.ts';
import { type MismatchPolicy, Verifier } from './verifier.ts';

interface BlkverifyOptions {
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

export const blkverify = defineFilter<BlkverifyOptions>({
  name: 'blkverify',
  summary: 'Mirrors every request to a trusted copy and compares',
  options: {
    'on-mismatch': option.choice(['throw', 'exit', 'stop'], {
      help: 'what a mismatch does: fail the request, end the program, or fail all later requests too',
      fallback: 'throw',
      beyond: true,
    }),
    'discard-result': option.choice(['unverified', 'zero'], {
      help: 'what is known of discarded ranges: nothing, or that they read as zeroes',
      fallback: 'unverified',
      beyond: true,
    }),
    'flush-raw': option.boolean({ help: 'flush the raw copy too', fallback: false, beyond: true }),
  },
  filters: 'test',
  noFolder: true,
  children: {
    raw: { role: 'data', protocolLevel: true },
    test: { role: 'filtered', protocolLevel: false },
  },
  parseFilename(filename) {
    const prefix = 'blkverify:';
    // A name without the prefix is that of the image under test (BV-1).
    if (!filename.startsWith(prefix)) return { options: {}, children: { test: filename } };
    const rest = filename.slice(prefix.length);
    const colon = rest.indexOf(':');
    if (colon < 0) throw new BlockError('EINVAL', 'blkverify requires raw copy and original image path');
    return { options: {}, children: { raw: rest.slice(0, colon), test: rest.slice(colon + 1) } };
  },
  exactFilename(_given, child) {
    const [raw, test] = [child('raw'), child('test')];
    const name = `blkverify:${raw}:${test}`;
    return raw === '' || test === '' || name.length > 4095 ? undefined : name;
  },
  async open(context) {
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
  },
});
