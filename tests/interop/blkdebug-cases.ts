/** Runs of qemu-io over blkdebug that must print the same, and end alike, in diskwright-io. */

export interface FaultRun {
  /** The text of the file `conf`; absent: options in `image` say what there is. */
  readonly config?: string;
  /** Options of the blkdebug node, between raw and file. */
  readonly options?: string;
  /** The image's driver; default raw. */
  readonly format?: 'raw' | 'vdi' | 'qcow2';
  /** Options of what is below it, in place of the image. */
  readonly below?: string;
  /** Words of the `open` command. */
  readonly words?: string;
  readonly commands: readonly string[];
}

export interface FaultGroup {
  readonly name: string;
  readonly runs: readonly FaultRun[];
}

const READ = ['read 0 512'];
const READ_RULE = '[inject-error]\nevent = "read_aio"\n';
const EVENTS = [
  ...['read_aio', 'read_backing_aio', 'write_aio', 'flush_to_os', 'flush_to_disk', 'pwritev_rmw_head'],
  ...['pwritev_rmw_after_head', 'pwritev_rmw_tail', 'pwritev_rmw_after_tail', 'pwritev', 'pwritev_zero'],
  ...['pwritev_done', 'none', 'l2_load', 'cluster_alloc', 'empty_image_prepare', 'cor_write'],
];

const QCOW2_EVENTS = [
  ...['l1_update', 'l2_load', 'l2_update', 'l2_alloc_write', 'read_aio', 'write_aio', 'cow_read', 'cow_write'],
  ...['refblock_load', 'refblock_update_part', 'refblock_alloc', 'cluster_alloc', 'cluster_free', 'reftable_load'],
  ...['flush_to_os', 'flush_to_disk', 'pwritev', 'pwritev_zero', 'pwritev_done'],
];

/** One rule of the file, with a further line. */
function entries(...lines: string[]): FaultRun[] {
  return lines.map((line) => ({ config: `${READ_RULE}${line}\n`, commands: READ }));
}

function files(...texts: string[]): FaultRun[] {
  return texts.map((config) => ({ config, commands: READ }));
}

function options(...lists: string[]): FaultRun[] {
  return lists.map((list) => ({ options: list, commands: [...READ, ...READ, 'write 0 512', 'length'] }));
}

/** Whether an event was raised shows in a discard that fails behind the commands. */
function raised(name: string, extra: string, ...commands: string[]): FaultGroup {
  const rule = (event: string) => `inject-error.0.event=${event},inject-error.0.iotype=discard,inject-error.0.errno=28`;
  return {
    name: `events of ${name} (BD-40, BD-41)`,
    runs: EVENTS.map((event) => ({
      options: rule(event) + extra,
      words: '-t writeback',
      commands: [...commands, 'discard 0 4k'],
    })),
  };
}

const numbers = [
  'x',
  '-1',
  '-5',
  '0',
  '0x1c',
  '034',
  ' 5',
  '5 ',
  '1k',
  '',
  '4294967296',
  '18446744073709551616',
  '1.5',
];

/** Whether a durable write comes down as one, or as a write and a flush, which then fails. */
function durable(below?: string): FaultRun {
  return {
    ...(below !== undefined && { below }),
    options: 'inject-error.event=none,inject-error.iotype=flush',
    words: '-t writeback',
    commands: ['write -f 0 512', 'write -f 0 512', 'write -f 100 10', 'write -z -f 0 4k', 'write -z -f 0 4k', 'flush'],
  };
}

export const FAULTS: readonly FaultGroup[] = [
  { name: 'force unit access (BD-8)', runs: [durable(), durable('driver=null-co,size=1M')] },
  {
    name: 'config files (BD-10, BD-20, BD-21)',
    runs: [
      ...entries('foo = "x"', 'errno = 28', 'errno = "28" junk', 'errno', 'errno "28"', 'errno =="28"', 'errno ="28"'),
      ...entries('errno = "5"\nerrno = "28"', '\terrno = "28"', 'id = "1"', 'new_state = "1"', 'once = on', 'foo="x"'),
      ...['errno', 'state', 'sector'].flatMap((key) => entries(...numbers.map((value) => `${key} = "${value}"`))),
      ...entries(...['on', 'off', 'yes', 'true', 'y', 'n', '1', ''].map((value) => `once = "${value}"`)),
      ...entries(...['read', 'write', 'flush', 'READ', ''].map((value) => `iotype = "${value}"`)),
      ...files('[inject-error]\nevent = "foo"', '[inject-error]\nevent = "READ_AIO"', '[inject-error]\nevent = ""'),
      ...files('[inject-error]', '[inject-error]\n', '[foo]\nevent = "x"', 'event = "x"', 'junk', '', '\n\n', '#\n'),
      ...files(
        '[set-state]\nevent = "read_aio"\nerrno = "1"',
        '[set-state]\nstate = "1"',
        '[set-state]\nevent = "foo"',
      ),
      ...files('[inject-error "x"]\nevent = "read_aio"\n[inject-error "x"]\nevent = "pwritev"'),
      ...files('[inject-error "x"]\nevent = "read_aio"\n[set-state "x"]\nevent = "pwritev"'),
      ...files(
        '[inject-error "1a"]',
        '[inject-error "a b"]',
        '[inject-error a]',
        '[inject-error ""]',
        '[]\nevent = "x"',
      ),
      ...files('[ inject-error ]', ' [inject-error]', '[inject-error  "a"]\nevent = "read_aio"', '[inject-error'),
      ...files('[inject-error] x\r\nevent = "read_aio"\r\n', '[inject-error]\nevent\t=\t"read_aio"'),
      ...files('[inject-error]\nevent = read_aio', '[inject-error]\n\n# note\nevent = "read_aio"'),
    ],
  },
  {
    name: 'options (BD-3, BD-11)',
    runs: [
      ...options('inject-error.foo=1', 'inject-error.errno=5', 'inject-error.event=foo', 'inject-error=foo'),
      ...options('inject-error.0.event=none,inject-error.errno=5', 'inject-error.1.event=none', 'inject-error.0=none'),
      ...options('inject-error.0.event=none,inject-error.2.event=none', 'inject-error.x.event=none'),
      ...options('inject-error.0.event=none,inject-error.0.foo=1', 'inject-error.00.event=none'),
      ...options('inject-error.event=none,inject-error.foo=1', 'set-state.event=none,set-state.errno=2'),
      ...options('set-state.event=none', 'inject-error.event=none,inject-error.once=true'),
      ...options('inject-error.event=none,inject-error.sector=x', 'config=nope', 'config=', 'config=.', 'foo=1'),
      ...options('inject-error.0.event=read_aio,inject-error.0.errno=28,inject-error.0.once=on'),
    ],
  },
  {
    name: 'permissions (BD-50)',
    runs: ['take-child-perms', 'unshare-child-perms'].flatMap((name) =>
      options(
        ...['write', 'foo', 'graph-mod', 'resize', 'consistent-read', 'write-unchanged'].map(
          (perm) => `${name}.0=${perm}`,
        ),
        ...[`${name}=write`, `${name}.1=write`, `${name}.x=write`, `${name}.0.x=write`],
      ),
    ),
  },
  {
    name: 'limits (BD-4, BD-5)',
    runs: [
      ...['align', 'max-transfer', 'opt-write-zero', 'max-write-zero', 'opt-discard', 'max-discard'].flatMap((name) =>
        options(
          ...['0', '1', '512', '1000', '1024', '1536', '4k', '2147483647', '2147483648', 'x', '8E'].map(
            (value) => `${name}=${value}`,
          ),
        ),
      ),
      ...options('align=1G', 'align=2G', 'align=4k,max-transfer=512', 'align=4k,opt-write-zero=6k'),
      ...options('align=4k,opt-write-zero=8k,max-write-zero=4k', 'align=4k,opt-discard=8k,max-discard=12k'),
      ...options('max-transfer=2147483136', 'align=4k,max-transfer=4k,opt-write-zero=8k,max-write-zero=16k'),
      {
        options: 'opt-write-zero=1536,max-write-zero=3072,max-transfer=1024',
        commands: [
          'write -P 3 0 64k',
          'write -z 100 9000',
          'read -P 0 100 9000',
          'read -P 3 9100 512',
          'read -P 3 0 100',
        ],
      },
    ],
  },
  {
    name: 'which rule decides (BD-12, BD-22 to BD-26)',
    runs: [
      ...['2', '3'].map((state) => ({
        options: `set-state.0.event=pwritev,set-state.0.new_state=2,set-state.1.event=pwritev,set-state.1.new_state=3,inject-error.event=read_aio,inject-error.state=${state}`,
        commands: ['read 0 512', 'write 0 512', 'read 0 512'],
      })),
      {
        options:
          'inject-error.0.event=read_aio,inject-error.0.errno=28,inject-error.1.event=read_aio,inject-error.1.errno=13',
        commands: READ,
      },
      {
        options:
          'inject-error.0.event=read_aio,inject-error.0.errno=28,inject-error.0.once=on,inject-error.1.event=read_aio,inject-error.1.errno=0',
        commands: [...READ, ...READ],
      },
      {
        options:
          'inject-error.0.event=read_aio,inject-error.0.errno=0,inject-error.0.once=on,inject-error.1.event=read_aio,inject-error.1.errno=28',
        commands: [...READ, ...READ],
      },
      {
        config:
          '[set-state]\nevent = "none"\nnew_state = "4"\n[inject-error]\nevent = "read_aio"\nerrno = "28"\nstate = "4"',
        commands: READ,
      },
      {
        config: '[inject-error]\nevent = "write_aio"\nerrno = "28"\n',
        commands: [
          'read 0 512',
          'write 0 512',
          'read 0 512',
          'write -z 0 512',
          'discard 0 512',
          'flush',
          'write 0 512',
        ],
      },
      ...['0', '1', '2', '3'].map((sector) => ({
        options: `inject-error.event=none,inject-error.sector=${sector}`,
        words: '-t writeback',
        commands: ['read 512 512', 'read 513 1', 'read 0 1536', 'write 512 512', 'write -z 1k 1k', 'discard 0 4k'],
      })),
    ],
  },
  {
    name: 'kinds of requests (BD-29)',
    runs: ['read', 'write', 'write-zeroes', 'discard', 'flush', 'block-status'].flatMap((type) =>
      ['none', 'pwritev', 'pwritev_zero', 'flush_to_os'].map((event) => ({
        options: `inject-error.event=${event},inject-error.iotype=${type},inject-error.errno=28`,
        words: '-t writeback',
        commands: ['read 0 512', 'write 0 512', 'write -z 0 4k', 'discard 0 4k', 'flush', 'alloc 0'],
      })),
    ),
  },
  {
    name: 'breakpoints (BD-30 to BD-34)',
    runs: [
      ['break pwritev A', 'break pwritev B', 'aio_write 0 512', 'wait_break B', 'resume B', 'wait_break A', 'resume A'],
      ['break pwritev A', 'break pwritev B', 'aio_write 0 512', 'wait_break A', 'resume B', 'resume A', 'resume B'],
      ['break pwritev A', 'break pwritev A', 'aio_write 0 512', 'wait_break A', 'resume A', 'sleep 50', 'resume A'],
      ['break foo A', 'break none A', 'remove_break A', 'remove_break A', 'resume A'],
      ['break read_aio A', 'aio_read 0 512', 'wait_break A', 'resume A', 'resume A'],
    ].map((commands) => ({ options: 'align=1', commands: [...commands, 'aio_flush', 'length'] })),
  },
  {
    name: 'errors over VDI',
    runs: ['none', 'pwritev'].flatMap((event) =>
      ['read', 'write'].map((type) => ({
        format: 'vdi' as const,
        options: `inject-error.event=${event},inject-error.iotype=${type},inject-error.errno=28`,
        // What is stored already, so that both write the same.
        commands: ['read 1M 512', 'write 1M 512', 'read 1M 512'],
      })),
    ),
  },
  {
    name: 'errors at events of qcow2, once each, in storage of their own (Q-EV-1, Q-EV-2, Q-ORD-9)',
    runs: QCOW2_EVENTS.map((event, index) => {
      // What one L2 table reaches.
      const at = index * 32;
      return {
        format: 'qcow2' as const,
        options: `inject-error.event=${event},inject-error.once=on,inject-error.errno=28`,
        words: '-t writeback',
        commands: [
          ...[`write ${at}k 512`, `write ${at + 1}k 512`, 'flush', `read ${at}k 2k`, `discard ${at}k 512`, 'flush'],
          `write ${at + 2}k 512`,
        ],
      };
    }),
  },
  {
    name: 'errors at events of qcow2 that is only read (Q-EV-1)',
    runs: ['reftable_load', 'l2_load', 'read_aio', 'refblock_load'].map((event) => ({
      format: 'qcow2' as const,
      options: `inject-error.event=${event},inject-error.once=on`,
      words: '-r',
      commands: ['read 0 512', 'read 1k 512', 'read 0 512'],
    })),
  },
  raised('a read', '', 'read 0 512'),
  raised('a write', '', 'write 0 512'),
  raised('a flush of nothing', '', 'flush'),
  raised('a flush', '', 'write 0 512', 'flush'),
  raised('a durable write', '', 'write -f 0 512'),
  raised('a flush after a durable write', '', 'write -f 0 512', 'flush'),
  raised('a flush that is ignored', ',cache.no-flush=on', 'write 0 512', 'flush'),
  raised('a zero write', '', 'write -z 0 64k'),
  raised('a discard', '', 'discard 0 64k'),
  raised('a status', '', 'alloc 0'),
  raised('a truncate', '', 'truncate 1M'),
  raised('a failed write', ',inject-error.1.event=pwritev,inject-error.1.iotype=write', 'write 0 512'),
  raised('a failed zero write', ',inject-error.1.event=pwritev_zero', 'write -z 0 512'),
  raised('an unaligned write', ',align=4096', 'write 10 10'),
  raised('a write with an unaligned head', ',align=4096', 'write 3584 512'),
  raised('a write with an unaligned tail', ',align=4096', 'write 0 4608'),
  raised('an unaligned long write', ',align=4096', 'write 100 8k'),
  raised('an unaligned zero write', ',align=4096', 'write -z 100 8k'),
  raised('a short zero write', ',align=4096', 'write -z 100 10'),
  raised('a zero write that the driver refuses', ',opt-write-zero=4096', 'write -z 512 512'),
  raised('a zero write in part refused', ',opt-write-zero=4096', 'write -z 512 8k'),
  raised('a write in pieces', ',max-transfer=512', 'write 0 4k'),
];
