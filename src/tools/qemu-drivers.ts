/**
 * The drivers with no more abilities than QEMU's have, for the command line that stands for qemu-img's: what it refuses,
 * scripts rely on (T-CHECK-1, T-RESIZE-1, T-MEAS-1, T-INFO-2).
 */
import type { CheckReport, DriverNode, DriverSpec, FormatSpec } from '../core/driver.ts';
import { BlockError } from '../core/errors.ts';

export function qemuDrivers(drivers: readonly DriverSpec[]): DriverSpec[] {
  const known = drivers.filter(({ name }) => name !== 'memory');
  return known.map((driver) => (driver.kind === 'format' && driver.name === 'vdi' ? restrictedVdi(driver) : driver));
}

/** No resize, no repair, no measure, nothing specific in info, no statistics in check. */
function restrictedVdi({ measure: _measure, ...spec }: FormatSpec<never, never>): FormatSpec<never, never> {
  return {
    ...spec,
    async open(context) {
      const node = await spec.open(context);
      const { check, info } = node;
      const restricted: Pick<DriverNode, 'check' | 'info'> = {
        async check(options) {
          if (check === undefined || options.repair !== 'none') {
            throw new BlockError('ENOTSUP', 'This image format does not support checks');
          }
          return withoutStatistics(await check.call(node, options));
        },
        info() {
          const { specific: _specific, ...rest } = info?.call(node) ?? {};
          return rest;
        },
      };
      Object.assign(node, restricted);
      Object.defineProperty(node, 'truncate', { value: undefined });
      return node;
    },
  };
}

function withoutStatistics({
  corruptions,
  leaks,
  checkErrors,
  corruptionsFixed,
  leaksFixed,
}: CheckReport): CheckReport {
  return { corruptions, leaks, checkErrors, corruptionsFixed, leaksFixed };
}
