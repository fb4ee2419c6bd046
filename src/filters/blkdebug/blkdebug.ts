/** Fault injection by rules, as QEMU's filter of that name, and past it (specification: the BD rules). */
import { type DriverNode, defineFilter, type OpenContext } from '../../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import { childStatus } from '../../core/filter.ts';
import type { Host } from '../../core/host.ts';
import { type OptionTree, option } from '../../core/options.ts';
import { PERMISSION_NAMES, type PermissionSet } from '../../core/permissions.ts';
import { CONFIG_MAX, parseConfig } from './config-file.ts';
import { type Constraints, constrainedLimits } from './constraints.ts';
import { Blkdebug, register } from './control.ts';
import { parseSection, type Rule } from './rules.ts';

interface BlkdebugOptions extends Constraints {
  readonly config: string | undefined;
  readonly seed: number;
  readonly 'inject-error': readonly Rule[];
  readonly 'set-state': readonly Rule[];
  readonly 'take-child-perms': PermissionSet;
  readonly 'unshare-child-perms': PermissionSet;
}

const limit = (help: string) => option.size({ help, fallback: 0 });

const options = {
  config: option.text<string | undefined>({ help: 'file with rules', fallback: undefined }),
  align: limit('request alignment that the node states'),
  'max-transfer': limit('longest request that the node takes'),
  'opt-write-zero': limit('alignment of zero writes that the node states'),
  'max-write-zero': limit('longest zero write that the node takes'),
  'opt-discard': limit('alignment of discards that the node states'),
  'max-discard': limit('longest discard that the node takes'),
  'inject-error': option.nested('rules that fail requests', (tree) => parseSection('inject-error', tree)),
  'set-state': option.nested('rules that change the state', (tree) => parseSection('set-state', tree)),
  'take-child-perms': option.nested('permissions to take on the child', parsePermissions),
  'unshare-child-perms': option.nested('permissions not to share on the child', parsePermissions),
  seed: option.number({ help: 'for all that rules leave to chance', fallback: 1, beyond: true }),
};

export const blkdebug = defineFilter<BlkdebugOptions>({
  name: 'blkdebug',
  summary: 'Injects faults by rules',
  options,
  strongOptions: Object.keys(options),
  filters: 'image',
  parseFilename(filename) {
    const prefix = 'blkdebug:';
    // A name without the prefix is the image's (BD-2).
    if (!filename.startsWith(prefix)) return { options: {}, children: { image: filename } };
    const rest = filename.slice(prefix.length);
    const colon = rest.indexOf(':');
    if (colon < 0) throw new BlockError('EINVAL', 'blkdebug requires both config file and image path');
    const config = rest.slice(0, colon);
    return { options: config === '' ? {} : { config }, children: { image: rest.slice(colon + 1) } };
  },
  exactFilename(given, child) {
    const image = child('image');
    if (image === '' || Object.keys(given).some((key) => key !== 'config')) return undefined;
    const name = `blkdebug:${given.config ?? ''}:${image}`;
    return name.length > 4095 ? undefined : name;
  },
  async open(context) {
    const { options: given, host, node, file } = context;
    // Refused here, and asked for again when the child changes.
    constrainedLimits(given, file.limits());
    const rules = await allRules(context);
    const control = new Blkdebug({ file, host, node, rules, seed: given.seed });
    void control.engine.event('none');
    const impl = filterMethods(context, control);
    register(impl, control);
    return impl;
  },
});

/** All inject-error rules, then all set-state rules; those of the file first (BD-12). */
async function allRules({ options: given, host }: OpenContext<BlkdebugOptions>): Promise<Rule[]> {
  const { config } = given;
  const fromFile = config === undefined ? [] : parseConfig(await readConfig(host, config), config);
  const rules = [...fromFile, ...given['inject-error'], ...given['set-state']];
  return [...rules.filter(({ kind }) => kind === 'inject-error'), ...rules.filter(({ kind }) => kind === 'set-state')];
}

async function readConfig(host: Host, filename: string): Promise<string> {
  try {
    if (filename === '') throw withErrno('ENOENT', filename);
    if ((await host.files.stat(filename)).kind === 'directory') throw withErrno('EISDIR', 'Cannot read config file');
    const file = await host.files.open(filename, { write: false });
    try {
      if (file.size() > CONFIG_MAX) throw withErrno('EFBIG', `'${filename}'`);
      const bytes = new Uint8Array(file.size());
      await file.read(0, bytes);
      return new TextDecoder().decode(bytes);
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (codeOf(cause) === 'EISDIR') throw cause;
    throw withErrno(codeOf(cause), 'Could not read blkdebug config file', { cause });
  }
}

function filterMethods({ options: given, file }: OpenContext<BlkdebugOptions>, control: Blkdebug): Partial<DriverNode> {
  const requestAlign = () => Math.max(file.limits().requestAlign, given.align);
  const below = childStatus(file);
  return {
    read: (offset, target) => control.read(offset, target),
    tryReadNow: (offset, target) => control.idle && file.tryReadNow(offset, target),
    write: (offset, source, flags) => control.write(offset, source, flags),
    // Where the child takes none, a durable write is a write and a flush here too (BD-8).
    takesFua: (kind) => file.takesFua(kind),
    tryWriteNow: (offset, source) => control.tryWriteNow(offset, source),
    async writeZeroes(offset, length, flags) {
      // The caller's own fallback is to be run (BD-7).
      if (length < Math.max(requestAlign(), given['opt-write-zero']))
        throw new BlockError('ENOTSUP', 'Operation not supported');
      await control.writeZeroes(offset, length, flags);
    },
    async discard(offset, length) {
      if (length < requestAlign()) throw new BlockError('ENOTSUP', 'Operation not supported');
      await control.discard(offset, length);
    },
    flush: () => control.flush(),
    truncate: (length, how) => control.truncate(length, how),
    async status(offset, length) {
      await control.status(offset, length);
      return below.status(offset, length);
    },
    tryStatusNow: (offset, length) => (control.idle ? below.tryStatusNow(offset, length) : undefined),
    limits: () => constrainedLimits(given, file.limits()),
    childPermissions: (_child, { need, share }) => ({
      need: need | given['take-child-perms'],
      share: share & ~given['unshare-child-perms'],
    }),
    debugEvent: (event) => control.engine.event(event),
    breakpoints: {
      breakpoint: (event, tag) => control.engine.breakpoint(event, tag),
      removeBreakpoint: (tag) => control.engine.removeBreakpoint(tag),
      isSuspended: (tag) => control.engine.isSuspended(tag),
      resume: (tag) => control.engine.resume(tag),
    },
    letGo: () => control.cancelAll(),
    letPass: () => control.letPass(),
    close: () => control.close(),
  };
}

/** A list of names of permissions (BD-50), refused in the words of QEMU, which names no parameter here. */
function parsePermissions(tree: OptionTree): PermissionSet {
  const fail = (message: string) => new BlockError('EINVAL', message);
  const keys = Object.keys(tree);
  const index = (key: string) => key.split('.', 1)[0] ?? '';
  if (!keys.every((key) => /^(0|[1-9]\d*)$/.test(index(key)))) {
    throw fail("Invalid parameter type for '<anonymous>', expected: array");
  }
  const count = new Set(keys.map(index)).size;
  const largest = Math.max(-1, ...keys.map((key) => Number(index(key))));
  if (largest !== count - 1) {
    throw fail(`List indices are not contiguous, saw ${count} elements but ${largest} largest index`);
  }
  let set = 0;
  for (const [key, value] of Object.entries(tree)) {
    if (key !== index(key) || typeof value !== 'string') {
      throw fail(`Invalid parameter type for '[${index(key)}]', expected: string`);
    }
    const found = PERMISSION_NAMES.find(([, name]) => name.replaceAll(' ', '-') === value);
    if (found === undefined) throw fail(`Parameter 'null' does not accept value '${value}'`);
    set |= found[0];
  }
  return set;
}
