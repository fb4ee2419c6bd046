/**
 * The drivers with no more abilities than QEMU's have, for the command line that stands for qemu-img's: what it refuses,
 * scripts rely on (T-CHECK-1, T-RESIZE-1, T-MEAS-1, T-INFO-2).
 */
import type {
  CheckReport,
  Child,
  CreationCheckContext,
  DriverNode,
  DriverSpec,
  FilterSpec,
  FormatCreateContext,
  FormatSpec,
  OpenContext,
} from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';
import { type AnySchema, parseOptions } from '../core/options.ts';
import { decodeHeader, readHeaderBytes } from '../formats/vdi/header.ts';
import { isStored, readMap } from '../formats/vdi/map.ts';
import { checkHeader } from '../formats/vdi/validate.ts';

export function qemuDrivers(drivers: readonly DriverSpec[], { survives = false } = {}): DriverSpec[] {
  const known = drivers.filter(({ name }) => name !== 'memory');
  return known.map((driver) => {
    if (driver.kind === 'format' && driver.name === 'vdi') return restrictedVdi(driver);
    if (driver.kind === 'protocol' && driver.name === 'nbd') return { ...driver, prefixes: ['nbd+tcp', 'nbd+unix'] };
    return driver.kind === 'filter' && driver.name === 'blkverify' && !survives ? exitingVerifier(driver) : driver;
  });
}

/** A mismatch ends the program (BV-8). */
function exitingVerifier({ options, ...spec }: FilterSpec<never>): FilterSpec<never> {
  const known: AnySchema = options;
  const policy = known['on-mismatch'];
  return { ...spec, options: { ...known, ...(policy && { 'on-mismatch': { ...policy, fallback: 'exit' } }) } };
}

/** No resize, no repair, no measure, no parents, no creation options of ours, nothing specific in info, QEMU's own check. */
function restrictedVdi({
  measure: _measure,
  temporaryOverlay: _overlay,
  ...spec
}: FormatSpec<never, never>): FormatSpec<never, never> {
  const { create } = spec;
  return {
    ...spec,
    supportsBacking: false,
    ...(create && { create: withQemuOptions(create) }),
    async open(context) {
      await refuseParent(context);
      // What it is based on is not looked for.
      const node = await spec.open({ ...context, backingGiven: true });
      const { info } = node;
      const restricted: Pick<DriverNode, 'check' | 'info'> = {
        async check({ repair, finding }) {
          if (repair === 'none') return checkVdi(context.file, finding);
          throw new BlockError('ENOTSUP', 'This image format does not support checks');
        },
        info() {
          const { specific: _specific, ...rest } = info?.call(node) ?? {};
          return rest;
        },
      };
      Object.assign(node, restricted);
      for (const missing of ['truncate', 'backing', 'changeBacking', 'makeEmpty']) {
        Object.defineProperty(node, missing, { value: undefined });
      }
      return node;
    },
  };
}

/** Creation options that qemu-img takes for a VDI (V-40); the rest of ours it refuses by name. */
const VDI_OPTIONS: readonly string[] = ['size', 'static', 'preallocation'];

/** Nor are there images over others. What cannot be given is as if it had not been. */
function withQemuOptions({ backing: _backing, ...create }: NonNullable<FormatSpec<never, never>['create']>) {
  const options = Object.entries(create.options).filter(([name]) => VDI_OPTIONS.includes(name));
  const { values } = parseOptions<object>(create.options, {});
  const completed = <T extends { readonly options: never }>(context: T): T => ({
    ...context,
    options: { ...values, ...(context.options as object) } as never,
  });
  return {
    ...create,
    options: Object.fromEntries(options),
    check: (context: CreationCheckContext<never>) => create.check?.(completed(context)),
    run: (context: FormatCreateContext<never>) => create.run(completed(context)),
  };
}

async function refuseParent({ file }: OpenContext<never>): Promise<void> {
  checkHeader(decodeHeader(await readHeaderBytes(file)), true);
}

/**
 * The three findings that QEMU has (V-45), in its words and order. What ours looks for besides would make images that
 * scripts know as good fail.
 */
async function checkVdi(file: Child, finding: (line: string) => void): Promise<CheckReport> {
  const { mapOffset, blocks, allocated } = decodeHeader(await readHeaderBytes(file));
  const map = await readMap(file, mapOffset, blocks);
  const used = new Uint8Array(blocks);
  let corruptions = 0;
  let counted = 0;
  const corrupt = (text: string) => {
    corruptions++;
    finding(`ERROR: ${text}`);
  };
  for (const [block, entry] of map.entries()) {
    if (!isStored(entry)) continue;
    if (entry >= blocks) corrupt(`block index ${block} too large, is ${entry}`);
    else {
      counted++;
      if (used[entry] === 1) corrupt(`block index ${entry} also used by ${entry}`);
      used[entry] = 1;
    }
  }
  if (counted !== allocated) corrupt(`allocated blocks mismatch, is ${counted}, should be ${allocated}`);
  return { corruptions, leaks: 0, checkErrors: 0, corruptionsFixed: 0, leaksFixed: 0 };
}
