/** The node of an image that keeps dirty bitmaps: what it does with them beside what it does without them. */
import type { DriverNode } from '../../../core/driver.ts';
import { settled } from '../../../core/gate.ts';
import type { Qcow2Image } from '../image.ts';
import { shrinkFile } from '../shrink-file.ts';
import { flushAll } from '../write-back.ts';
import { type BitmapSession, changing } from './session.ts';

type Changes =
  | 'write'
  | 'tryWriteNow'
  | 'writeCompressed'
  | 'writeZeroes'
  | 'discard'
  | 'truncate'
  | 'flush'
  | 'newStorage'
  | 'makeEmpty'
  | 'compact';
type Life = 'prepareReopen' | 'inactivate' | 'activate' | 'close';
export type PlainNode = DriverNode & Required<Pick<DriverNode, Changes | Life>>;

/** `image`: the one that is open now. The node's own methods do the rest. */
export function keepBitmaps(node: PlainNode, session: BitmapSession, image: () => Qcow2Image): DriverNode {
  const writable = () => image().writable;
  return {
    ...node,
    tracker: session.list,
    write: (offset, source, flags) => session.noted(offset, source.length, () => node.write(offset, source, flags)),
    tryWriteNow: (offset, source) => image().beforeChange === undefined && node.tryWriteNow(offset, source),
    writeCompressed: (offset, source) =>
      session.noted(offset, source.length, () => node.writeCompressed(offset, source)),
    writeZeroes: (offset, length, flags) =>
      session.noted(offset, length, () => node.writeZeroes(offset, length, flags)),
    discard: (offset, length) => session.noted(offset, length, () => node.discard(offset, length)),
    truncate: (length, options) => session.resizing(() => node.truncate(length, options)),
    async flush() {
      const told = session.tell();
      // Data are made durable whatever becomes of bitmaps.
      await settled([node.flush(), told]);
    },
    newStorage: () => (image().beforeChange === undefined ? node.newStorage() : Promise.resolve(undefined)),
    makeEmpty: () => changing(image(), () => node.makeEmpty()),
    async compact(options) {
      await node.compact(options);
      if (!(await session.rewrite())) return;
      await flushAll(image());
      await shrinkFile(image());
    },
    async prepareReopen(next) {
      const [was, will] = [writable(), next.writable];
      if (will && !was && image().bitmaps.broken !== undefined) throw image().bitmaps.broken;
      if (was && !will) await session.store();
      const step = await node.prepareReopen(next).catch((error: unknown) => {
        if (was) session.arm();
        throw error;
      });
      return {
        commit() {
          step.commit();
          if (was && !will) session.makeReadOnly();
        },
        abort() {
          step.abort();
          // They may have been stored, and so be marked as complete.
          if (was) session.arm();
        },
        async finish() {
          await step.finish?.();
          if (will && !was) session.makeWritable();
        },
      };
    },
    async inactivate() {
      session.requireIdle();
      await ending(session, () => node.inactivate());
      session.unload();
    },
    async activate() {
      await node.activate();
      await session.load();
    },
    close: () => ending(session, () => node.close()),
  };
}

/** What can be written back is, also when bitmaps are lost, which then is what is told. */
async function ending(session: BitmapSession, end: () => Promise<void>): Promise<void> {
  const failures: unknown[] = [];
  const note = (error: unknown) => void failures.push(error);
  await session.store().catch(note);
  await end().catch(note);
  if (failures.length > 0) throw failures[0];
}
