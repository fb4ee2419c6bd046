/** A node that is opened: its rules, also those of a file, and its methods. */
import type { DriverNode, OpenContext } from '../../core/driver.ts';
import { BlockError, codeOf, withErrno } from '../../core/errors.ts';
import { childStatus } from '../../core/filter.ts';
import type { Host } from '../../core/host.ts';
import type { PermissionSet } from '../../core/permissions.ts';
import { CONFIG_MAX, parseConfig } from './config-file.ts';
import { type Constraints, constrainedLimits } from './constraints.ts';
import { Blkdebug, register } from './control.ts';
import type { Rule } from './rules.ts';

export interface BlkdebugOptions extends Constraints {
  readonly config: string | undefined;
  readonly seed: number;
  readonly 'inject-error': readonly Rule[];
  readonly 'set-state': readonly Rule[];
  readonly 'take-child-perms': PermissionSet;
  readonly 'unshare-child-perms': PermissionSet;
}

export async function openBlkdebug(context: OpenContext<BlkdebugOptions>): Promise<Partial<DriverNode>> {
  const { options: given, host, node, file } = context;
  // Refused here, and asked for again when the child changes.
  constrainedLimits(given, file.limits());
  const rules = await allRules(context);
  const control = new Blkdebug({ file, host, node, rules, seed: given.seed });
  void control.engine.event('none');
  const impl = filterMethods(context, control);
  register(impl, control);
  return impl;
}

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
