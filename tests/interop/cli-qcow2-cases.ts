/** Command lines about qcow2's options: making, resizing, amending, data files; ours and qemu-img's must print the same. */
import type { CaseGroup } from './cli-cases.ts';

const create = (options: string, size = '1M') => `create -f qcow2 -o ${options} a ${size}`;

export const QCOW2: readonly CaseGroup[] = [
  {
    name: "qcow2's numbers and flags (T-OPT-4, T-CREATE-2)",
    lines: [
      ...['08', '020', '+8', '0x10', '0x', '00', '16.0', '1e1', '99999999999999999999999', '3', '128', '64'].map(
        (bits) => create(`refcount_bits=${bits}`),
      ),
      ...['y', 'n', 'yes', 'no', 'true', 'false', 'on', 'On', '1'].map((flag) => create(`extended_l2=${flag}`)),
      create('lazy_refcounts=y,data_file_raw=n'),
      'amend -f qcow2 -o refcount_bits=010 a',
      '≈info a',
      'amend -f qcow2 -o refcount_bits=99999999999999999999999 a',
    ],
  },
  {
    name: 'qcow2: sizes (Q-SIZE-1, Q-AM-1, T-RESIZE-1)',
    lines: [
      create('cluster_size=64k'),
      'resize -f qcow2 a 5000000',
      'resize -f qcow2 a +100',
      'resize -f qcow2 --shrink a 1000',
      'resize -f qcow2 a 0',
      'resize -f qcow2 a 3P',
      'resize -f qcow2 a 2M',
      'resize -f qcow2 --preallocation=metadata a 3M',
      'amend -f qcow2 -o size=0 a',
      'amend -f qcow2 -o size=5000 a',
      'amend -f qcow2 -o size=9E a',
      'amend -f qcow2 -o size=4M a',
      '≈info a',
      'check a',
      'create -q -f raw r 4096',
      'resize -f raw r 5000',
      'resize -f raw r +100',
      '≈info r',
    ],
  },
  {
    name: 'qcow2: measuring (Q-ME-1, Q-ME-2)',
    lines: [
      'measure --size 7E',
      ...[
        '--size 10M -o backing_file=b,backing_fmt=qcow2',
        '--size 10M -o backing_fmt=qcow2',
        '--size 10M -o backing_file=b,preallocation=full',
        '--size 10M -o data_file=x,data_file_raw=on',
        '--size 7E',
        '--size 3P',
        '--size 3P -o cluster_size=2M',
        'd10.raw',
        '-o backing_file=b,backing_fmt=qcow2 d10.raw',
        '-o backing_file=b,preallocation=metadata d10.raw',
        '-o preallocation=falloc d10.raw',
        '-o cluster_size=1k,refcount_bits=1 d10.raw',
      ].map((words) => `measure -O qcow2 ${words}`),
    ],
  },
  {
    name: 'qcow2: maps (Q-READ-4, T-MAP-2, T-MAP-4)',
    lines: [
      create('extended_l2=on'),
      // Subclusters without data in a cluster that has storage, before and after such with data.
      'convert -n -f raw -O qcow2 d10.raw a',
      'create -q -f qcow2 -o extended_l2=on,cluster_size=2M a 10M',
      'convert -n -f raw -O qcow2 d10.raw a',
      'map --output=json a',
      'map a',
      'create -q -f qcow2 -o extended_l2=on -b a -F qcow2 over',
      'map --output=json over',
    ],
  },
  {
    name: 'qcow2: formats of backing files that are none (T-CREATE-1, T-CONV-3)',
    lines: [
      'create -f qcow2 -u -b d10.raw -F foo a 1M',
      'create -f qcow2 -b d10.raw -F foo a',
      'create -f qcow2 -u -b d10.raw -F qcow a 1M',
      'convert -O qcow2 -B d10.raw -F foo d10.raw c',
      'convert -O qcow2 -o backing_file=d10.raw,backing_fmt=foo d10.raw c',
      'rebase -u -b d10.raw -F foo a',
    ],
  },
  {
    name: 'qcow2: data files (Q-DATA-2, Q-DATA-3, Q-AM-2)',
    lines: [
      create('data_file=nodir/d'),
      create('data_file='),
      create('data_file=d'),
      '≈info a',
      'amend -o data_file=e a',
      '≈info a',
      'map a',
      'amend -o data_file=d a',
      'map a',
      'snapshot -c x a',
      'snapshot -l a',
      'snapshot -a x a',
      'snapshot -d x a',
      'convert -O qcow2 -o data_file=f,data_file_raw=on d10.raw b',
      'compare -f raw f d10.raw',
      'compare b d10.raw',
      'measure -O qcow2 -o data_file=x b',
    ],
  },
];
