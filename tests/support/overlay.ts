/** A format with a backing image: its clusters are in its file at the same place, and which of them is known to the open node only. */
import { type Child, type DriverNode, defineFormat, type OpenContext } from '../../src/core/driver.ts';
import { option } from '../../src/core/options.ts';

interface OverlayOptions {
  /** Bytes of a cluster, a power of two. */
  readonly cluster: number;
  /** Whether a part of a cluster may be written. */
  readonly partial: boolean;
}

type ClusterState = 'data' | 'zero';

export const overlay = defineFormat<OverlayOptions>({
  name: 'overlay',
  summary: 'A layer over a backing image, for tests',
  options: {
    cluster: option.size({ help: 'cluster size', fallback: 4096 }),
    partial: option.boolean({ help: 'takes requests of any alignment', fallback: false }),
  },
  supportsBacking: true,
  async open(context) {
    return overlayNode(context);
  },
});

function overlayNode({ file, options, child }: OpenContext<OverlayOptions>): DriverNode {
  const { cluster } = options;
  const clusters = new Map<number, ClusterState>();
  const eachCluster = (offset: number, length: number) => {
    const first = Math.floor(offset / cluster);
    return Array.from({ length: Math.ceil((offset + length) / cluster) - first }, (_, i) => first + i);
  };
  const readCluster = async (number: number, offset: number, target: Uint8Array) => {
    const state = clusters.get(number);
    const backing: Child | undefined = state === undefined ? child('backing') : undefined;
    if (state === 'data') await file.read(offset, target);
    else if (backing === undefined) target.fill(0);
    else await backing.read(offset, target);
  };
  return {
    length: () => file.length(),
    backing: () => undefined,
    limits: () => ({
      requestAlign: options.partial ? 1 : cluster,
      zeroAlign: cluster,
      discardAlign: cluster,
      preferred: cluster,
    }),
    async read(offset, target) {
      for (const number of eachCluster(offset, target.length)) {
        const start = Math.max(0, number * cluster - offset);
        const end = Math.min(target.length, (number + 1) * cluster - offset);
        await readCluster(number, offset + start, target.subarray(start, end));
      }
    },
    async write(offset, source) {
      for (const number of eachCluster(offset, source.length)) {
        if (clusters.get(number) === 'data') continue;
        const whole = new Uint8Array(cluster);
        await readCluster(number, number * cluster, whole);
        await file.write(number * cluster, whole);
        clusters.set(number, 'data');
      }
      await file.write(offset, source);
    },
    async writeZeroes(offset, length) {
      for (const number of eachCluster(offset, length)) clusters.set(number, 'zero');
    },
    async status(offset, length) {
      const [first = 0, ...others] = eachCluster(offset, length);
      const state = clusters.get(first);
      const other = others.find((number) => clusters.get(number) !== state);
      const run = other === undefined ? length : other * cluster - offset;
      if (state === undefined) return { kind: 'unallocated', length: run };
      if (state === 'zero') return { kind: 'zero', length: run };
      return { kind: 'data', length: run, at: { child: file.name, offset } };
    },
  };
}
