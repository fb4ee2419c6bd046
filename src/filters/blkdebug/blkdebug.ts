/** Fault injection by rules, as QEMU's filter of that name, and past it (specification: the BD rules). */
import { defineFilter } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { type OptionTree, option } from '../../core/options.ts';
import { PERMISSION_NAMES, type PermissionSet } from '../../core/permissions.ts';
import { type BlkdebugOptions, openBlkdebug } from './node.ts';
import { parseSection } from './rules.ts';

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
  open: openBlkdebug,
});

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
