/** Passes requests on no faster than a throttle group allows (BL-MISC-2). */
import { type DriverNode, defineFilter } from '../../core/driver.ts';
import { BlockError } from '../../core/errors.ts';
import { childStatus } from '../../core/filter.ts';
import type { Host } from '../../core/host.ts';
import type { LimitedKind } from '../../core/io-limiter.ts';
import { option } from '../../core/options.ts';
import type { ThrottleMember } from './group.ts';
import { throttleGroups } from './groups.ts';

interface ThrottleOptions {
  readonly 'throttle-group': string | undefined;
}

export const throttle = defineFilter<ThrottleOptions>({
  name: 'throttle',
  summary: 'Limits bytes and requests per second, together with other members of a throttle group',
  options: {
    'throttle-group': option.text<string | undefined>({
      help: 'id of the throttle-group object whose limits apply',
      fallback: undefined,
      reopen: true,
    }),
  },
  strongOptions: ['throttle-group'],
  async open({ options, file, host }): Promise<Partial<DriverNode>> {
    let member = joinGroup(host, options['throttle-group']);
    /** At once only where neither the limits nor the child make it wait; then it counts. */
    const passNow = (kind: LimitedKind, bytes: number, request: () => boolean) => {
      const done = member.mayPass(kind) && request();
      if (done) member.count(kind, bytes);
      return done;
    };
    return {
      async read(offset, target) {
        const turn = member.wait('read', target.length);
        if (turn !== undefined) await turn;
        await file.read(offset, target);
      },
      tryReadNow: (offset, target) => passNow('read', target.length, () => file.tryReadNow(offset, target)),
      async write(offset, source, flags) {
        const turn = member.wait('write', source.length);
        if (turn !== undefined) await turn;
        await file.write(offset, source, flags);
      },
      tryWriteNow: (offset, source) => passNow('write', source.length, () => file.tryWriteNow(offset, source)),
      takesFua: (kind) => file.takesFua(kind),
      async writeCompressed(offset, source) {
        const turn = member.wait('write', source.length);
        if (turn !== undefined) await turn;
        await file.write(offset, source, { compressed: true });
      },
      async writeZeroes(offset, length, flags) {
        const turn = member.wait('write', length);
        if (turn !== undefined) await turn;
        await file.writeZeroes(offset, length, flags);
      },
      async discard(offset, length) {
        const turn = member.wait('write', length);
        if (turn !== undefined) await turn;
        await file.discard(offset, length);
      },
      ...childStatus(file),
      async prepareReopen(next) {
        const replacement = joinGroup(host, (next.options as ThrottleOptions)['throttle-group']);
        return {
          commit() {
            member.leave();
            member = replacement;
          },
          abort: () => replacement.leave(),
        };
      },
      letPass() {
        const passing = member;
        passing.disable();
        return () => passing.enable();
      },
      letGo: () => member.disable(),
      quiesce: () => member.disable(),
      resume: () => member.enable(),
      async close() {
        member.leave();
      },
    };
  },
});

/** Throws BlockError EINVAL without a name, or for one that no group has. */
function joinGroup(host: Host, name: string | undefined): ThrottleMember {
  if (name === undefined) throw new BlockError('EINVAL', 'Please specify a throttle group');
  const group = throttleGroups(host).get(name);
  if (group === undefined) throw new BlockError('EINVAL', `Throttle group '${name}' does not exist`);
  return group.join();
}
